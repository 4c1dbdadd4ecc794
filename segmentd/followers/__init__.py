"""More cores: processes that read the same store and answer queries on the same port."""
