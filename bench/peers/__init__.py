"""What a user would build instead: FastAPI, uvicorn and Redis, once done well and once done plainly."""
