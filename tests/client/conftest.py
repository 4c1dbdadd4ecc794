"""A real server for the client, and `segmentd send` as a child process beside it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serverprocess import PUBLIC_KEY, ROOT, Sections, ServerProcess, log_shown

Serve = Callable[..., ServerProcess]


class ServerAtPort(ServerProcess):
    """A server that comes back at the same address when it is started again. port 0: at any, as usual."""

    def __init__(self, folder: Path, sections: Sections, port: int) -> None:
        super().__init__(folder, sections)
        self._port = port

    def command(self, name: str, *arguments: str) -> list[str]:
        """As ever, with the port."""
        return super().command(name, *(argument.replace(":0", f":{self._port}") for argument in arguments))


@pytest.fixture
def unused_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with the sections that a test wishes."""
    with ExitStack() as stack:

        def start(*, port: int = 0, **sections: dict[str, Any]) -> ServerProcess:
            server = stack.enter_context(ServerAtPort(tmp_path, sections, port))
            stack.enter_context(log_shown(server))
            return server

        yield start


def event(number: int, person: str | None = None, action: str = "qualify") -> dict[str, Any]:
    """A valid event; `number` is its time and, without `person`, whom it is about."""
    return {
        "type": "passthrough",
        "action": action,
        "identifiers": {"fs_user_id": person or f"u{number}"},
        "data": {"audience_id": "vip", "ts": 1_700_000_000 + number},
    }


def ndjson(path: Path, events: list[Any]) -> Path:
    """A file of one event a line; strings go in as they are."""
    lines = (one if isinstance(one, str) else json.dumps(one) for one in events)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def members(server: ServerProcess) -> set[str]:
    """Who is a member of the audience now, through a segment that shows it."""
    with server.client(server.private_key) as client:
        definition = {"definition": {"external": {"external_audience_id": "vip"}}}
        assert client.put("/v3/segments/vip", json=definition).status_code in {200, 201}
        answer: httpx.Response = client.get("/v3/segments/vip/members?format=ndjson")
        assert answer.status_code == 200
        return {json.loads(line)["identifiers"]["fs_user_id"] for line in answer.text.splitlines()}


def command(server_url: str, *arguments: str | Path) -> list[str]:
    """The command line of `segmentd send` for a server."""
    return [sys.executable, "-m", "segmentd", "send", "--url", server_url, *map(str, arguments)]


def environ(key: str = PUBLIC_KEY) -> dict[str, str]:
    """Only the key, of all that is named SEGMENTD."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTD_")}
    return inherited | {"SEGMENTD_KEY": key, "PYTHONPATH": str(ROOT)}


def run_send(
    server_url: str, *arguments: str | Path, key: str = PUBLIC_KEY, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """`segmentd send` to its end."""
    line = command(server_url, *arguments)
    return subprocess.run(line, input=stdin, env=environ(key), capture_output=True, check=False, timeout=300)
