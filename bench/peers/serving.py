"""Runs a peer's application with uvicorn on a port that the kernel chooses, and says where.

Owns the socket, the start line and the command line of a peer. Never looks at requests.
"""

import argparse
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn


class PeerSettings(msgspec.Struct, forbid_unknown_fields=True):
    """What the bench tells a peer, as a JSON file."""

    redis_socket: str
    api_key: str
    audience_of_segment: dict[str, str]


def serve(make_app: Callable[[PeerSettings], Any]) -> None:
    """Serve `make_app(settings)` until SIGTERM. Prints `listening on http://HOST:PORT`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    arguments = parser.parse_args()
    app = make_app(msgspec.json.decode(arguments.settings.read_bytes(), type=PeerSettings))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])
