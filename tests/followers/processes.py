"""A real server with followers, and connections whose process the test chooses.

A process that is stopped (SIGSTOP) accepts nothing, so a connection made meanwhile belongs to the other one.
"""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.serverprocess import START_SECONDS_MAX, ServerProcess

READY = re.compile(r"follower ready .*pid=(\d+)")
PATIENCE_SECONDS = 60.0
SAID_SECONDS = 0.2


class Reply(NamedTuple):
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A keep-alive connection on which bytes are sent as they are."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> Reply:
        """The next answer; it has a Content-Length. Raises ConnectionError where the connection ends before."""
        while b"\r\n\r\n" not in self._received:
            self._read()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = int(lines[0].split()[1])
        length = 0 if status == 204 else int(headers["content-length"])
        self._received = rest
        while len(self._received) < length:
            self._read()
        body, self._received = self._received[:length], self._received[length:]
        return Reply(status, headers, body)

    def ask(self, request: bytes) -> Reply:
        self.send(request)
        return self.reply()

    def _read(self) -> None:
        received = self.socket.recv(65_536)
        if not received:
            raise ConnectionError("the connection has ended")
        self._received += received


def request(method: str, path: str, body: bytes = b"", key: str = ServerProcess.private_key, extra: str = "") -> bytes:
    """A plain HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def events(*triples: tuple[str, str, bool], ts: float = 1_700_000_000) -> bytes:
    """(identifier, audience, qualify) each."""
    listed = [
        {
            "type": "passthrough",
            "action": "qualify" if qualify else "disqualify",
            "identifiers": {"fs_user_id": identifier},
            "data": {"audience_id": audience, "ts": ts},
        }
        for identifier, audience, qualify in triples
    ]
    return request("POST", "/v3/events", json.dumps(listed).encode())


def query(identifier: str, fields: str = "name", padding: int = 0) -> bytes:
    """In which segments is the identifier? fields: of a segment."""
    text = f'{{customer(fs_user_id: "{identifier}") {{audiences {{edges {{node {{{fields}}}}}}}}}}}'
    return request("POST", "/v3/graphql", json.dumps({"query": text}).encode() + b" " * padding)


def names(reply: Reply) -> list[str]:
    """The segments that a query's answer lists."""
    assert reply.status == 200, reply
    return [edge["node"]["name"] for edge in reply.json["data"]["customer"]["audiences"]["edges"]]


IGNORED = request("POST", "/v3/events", b'{"type": "fullstack", "action": "identified"}')
"""Accepted and dropped."""


class FollowedServer(ServerProcess):
    """A server with one follower, unless `sections` says more."""

    def __init__(self, folder: Path, sections: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        given = dict(sections or {})
        given["server"] = {"followers": 1, **given.get("server", {})}
        self._followers = int(given["server"]["followers"])
        super().__init__(folder, given)

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """As ServerProcess; returns when the followers are ready too."""
        super().start(environ)
        self.wait_followers()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def follower_pids(self) -> list[int]:
        """Processes that were ever ready as followers, the last one last."""
        return [int(match[1]) for line in self.log if (match := READY.search(line))]

    @property
    def follower_pid(self) -> int:
        return self.follower_pids()[-1]

    def wait_followers(self) -> None:
        """Return when all followers are ready."""
        wanted = {"ready": self._followers, "wanted": self._followers}
        with self.client() as client:
            until(lambda: client.get("/readyz").json().get("followers") == wanted, self.log_text)

    def connection(self) -> Connection:
        """With whichever process accepts it."""
        return Connection(self.port)

    def to_follower(self) -> Connection:
        """A connection that the follower has accepted and answered a query on."""
        with paused(self.pid):
            connection = self.connection()
            assert connection.ask(query("nobody")).status == 200
        return connection

    def to_owner(self) -> Connection:
        """A connection that the owner has accepted and answered on."""
        with paused(*self.live_followers()):
            connection = self.connection()
            # No query, which an owner that is still busy with events would hand to the follower that is paused.
            assert connection.ask(IGNORED).status == 202
        return connection

    def live_followers(self) -> list[int]:
        return [pid for pid in self.follower_pids() if is_alive(pid)]

    def metrics(self) -> dict[str, float]:
        """`name{label="value",...}` → value, labels in order."""
        with self.client() as client:
            text = client.get("/metrics").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """The processes do nothing meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        until(lambda pid=pid: _state(pid) in {"T", "t"})  # type: ignore[misc]
    # What the owner said last does not hold any more: nothing is given to it.
    time.sleep(SAID_SECONDS)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, a zombie not counted."""
    return _state(pid) not in {"", "Z", "X"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def until(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """Wait for something that must come to be."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)
