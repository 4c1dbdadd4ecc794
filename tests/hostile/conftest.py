"""The fixtures of the HTTP tests that are used here too."""

from tests.http.conftest import served

__all__ = ["served"]
