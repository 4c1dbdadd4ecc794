"""Clients of an overloaded server: raw connections by the thousand, and what is seen of the server meanwhile.

Owns sockets and requests as bytes. Knows nothing of segmentd's own code.
"""

import contextlib
import json
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx

from tests.serverprocess import ServerProcess

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.02
AUDIENCE = SEGMENT = "crowd"
EPOCH = 1_700_000_000


class Reply(NamedTuple):
    """Status and headers (names in lower case) of one answer; status 0: the connection ended without one."""

    status: int
    headers: dict[str, str]


class Client:
    """One raw connection."""

    def __init__(self, server: ServerProcess, receive_buffer_bytes: int = 0) -> None:
        """receive_buffer_bytes: small for one who does not read; 0: as the kernel has it."""
        address = urlsplit(server.url)
        self._socket = socket.socket()
        if receive_buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.connect((address.hostname, address.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """False where the server has ended the connection."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def reply(self) -> Reply:
        """Read the head of one answer."""
        received = b""
        try:
            while b"\r\n\r\n" not in received:
                part = self._socket.recv(65_536)
                if not part:
                    return Reply(0, {})
                received += part
        except ConnectionResetError:
            return Reply(0, {})
        lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return Reply(int(lines[0].split()[1]), headers)

    def is_open(self) -> bool:
        """Whether the server has neither said nor ended anything."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        else:
            return False
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)


class Crowd(contextlib.ExitStack):
    """Connections that end together."""

    def join(self, server: ServerProcess, count: int, receive_buffer_bytes: int = 0) -> list[Client]:
        """So many more."""
        return [self.enter_context(Client(server, receive_buffer_bytes)) for _ in range(count)]


@dataclass
class Seen:
    """What a watcher saw while the crowd was there."""

    answers: Counter[str] = field(default_factory=Counter)
    """Of `/healthz` and of queries that were answered rightly."""
    wrong: list[str] = field(default_factory=list)
    resident_bytes_max: int = 0


@contextmanager
def watching(server: ServerProcess) -> Iterator[Seen]:
    """Ask for health and a query all the time while the body runs. Both must be answered throughout."""
    seen, stop = Seen(), threading.Event()

    def watch() -> None:
        with server.client(server.private_key) as client:
            while not stop.wait(POLL_SECONDS):
                for name, ask in (("healthz", _is_healthy), ("query", _answers_queries)):
                    try:
                        right = ask(client)
                    except httpx.HTTPError as error:
                        seen.wrong.append(f"{name}: {error!r}")
                        return
                    seen.answers[name] += right
                    if not right:
                        seen.wrong.append(name)
                seen.resident_bytes_max = max(seen.resident_bytes_max, resident_bytes(server.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
    assert not seen.wrong, seen.wrong[:10]
    assert min(seen.answers["healthz"], seen.answers["query"]) > 0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def allow_descriptors(count: int) -> bool:
    """Raise what this process and its children may open; False where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return count <= hard


def events(numbers: range, qualify: bool = True, padding_bytes: int = 0) -> bytes:
    """A body of events. padding_bytes: of white space at its end."""
    made = [
        {
            "type": "passthrough",
            "action": "qualify" if qualify else "disqualify",
            "identifiers": {"fs_user_id": f"u-{number}"},
            "data": {"audience_id": AUDIENCE, "ts": EPOCH},
        }
        for number in numbers
    ]
    return json.dumps(made).encode() + b" " * padding_bytes


def head(path: str, length: int | None, key: str = ServerProcess.private_key) -> bytes:
    """Of a POST. length: None for chunks, which the lane leaves to Hypercorn."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [f"POST {path} HTTP/1.1", "host: test", f"x-api-key: {key}", "content-type: application/json", framing]
    return "\r\n".join([*lines, "", ""]).encode()


def show(server: ServerProcess) -> None:
    """One member and the segment to see it."""
    with server.client(server.private_key) as client:
        definition = {"definition": {"external": {"external_audience_id": AUDIENCE}}}
        assert client.put(f"/v3/segments/{SEGMENT}", json=definition).status_code == 201
        assert client.post("/v3/events", content=events(range(1))).status_code == 202


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Poll, with a bound that turns a hang into a failure."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(POLL_SECONDS)


def size(client: httpx.Client) -> int:
    """Members of the audience."""
    query = f'{{ audience(name: "{SEGMENT}") {{ size }} }}'
    found: dict[str, Any] = client.post("/v3/graphql", json={"query": query}).json()
    return int(found["data"]["audience"]["size"])


def assert_recovered(server: ServerProcess) -> None:
    """The next events are taken, and the server is ready."""
    body = events(range(1))
    with server.client(server.private_key) as client:
        wait_until(lambda: client.post("/v3/events", content=body).status_code == 202, "events are taken again")
        assert client.get("/readyz").status_code == 200


def _is_healthy(client: httpx.Client) -> bool:
    return client.get("/healthz").status_code == 200


def _answers_queries(client: httpx.Client) -> bool:
    query = f'{{ customer(fs_user_id: "u-0") {{ audiences(subset: ["{SEGMENT}"]) {{ edges {{ cursor }} }} }} }}'
    answer = client.post("/v3/graphql", json={"query": query})
    return answer.status_code == 200 and answer.json()["data"]["customer"]["audiences"]["edges"] != []
