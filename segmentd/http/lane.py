"""The lane: the short road for the two requests that come by the thousand.

In front of Hypercorn on the same port, for plain HTTP/1.1 `POST /v3/graphql` and `POST /v3/events` with a
Content-Length. It takes only what it fully understands. At the first request that is anything else it hands the
connection over, with every byte of that request, and Hypercorn keeps it to its end. So the lane can be small: whatever
is rare, odd or doubtful (chunks, Expect, Upgrade, HTTP/1.0, HTTP/2, TLS, repeated or unusual headers, bodies that are
too large) is not judged here. What a request means is decided by the same edge on both roads.

Invariants:
1. A byte is either consumed by a request that was answered here, or handed over; never both, never lost.
2. Framing is Content-Length alone, exactly one, digits only; the C parser (llhttp) must agree, or the connection ends.
3. One request of a connection at a time; what a client sends ahead waits in the buffer, which is bounded.
4. Waiting is bounded: for a first byte `keep_alive_seconds_max`, for the rest of a request `request_read_seconds_max`.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

import httptools
import trio

from segmentd.domain.refusals import Refusal
from segmentd.http.dates import http_date
from segmentd.http.edge import Edge
from segmentd.http.errors import RequestTimeout
from segmentd.http.exchange import Answer, Request
from segmentd.http.routing import Match
from segmentd.settings import ServerSettings

HEAD_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 48
RECEIVE_BYTES: Final = 65_536
_END_OF_HEAD: Final = b"\r\n\r\n"
# Everything that changes how a message is framed, or what the connection becomes.
_NOT_HERE: Final = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"})
_LENGTH: Final = re.compile(rb"[0-9]{1,10}")
_PLAIN_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")


class LaneStream(Protocol):
    """What the lane needs of a connection."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def send_all(self, data: bytes) -> None: ...


class HandedOverError(Exception):
    """The request at the beginning of the buffer is not for the lane."""


class LaneEndedError(Exception):
    """The connection is over: the client left, was too slow, or its bytes made no sense."""


class _Head:
    """Collects what llhttp finds in the head of one request."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.length = b""
        self.sound = True
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.decode("latin-1").lower()
        value = value.strip(b" \t")
        if lowered in self.headers or lowered in _NOT_HERE or not _PLAIN_VALUE.fullmatch(value):
            self.sound = False
        elif lowered == "content-length":
            self.length = value
        self.headers[lowered] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        self.complete = True


class LaneRoutes:
    """The request lines that the lane knows, and where they lead."""

    def __init__(self, edge: Edge, paths: tuple[str, ...] = ("/v3/graphql", "/v3/events")) -> None:
        self.by_line = {f"POST {path} HTTP/1.1\r\n".encode(): (path, edge.find(path)) for path in paths}
        self._lines = tuple(self.by_line)

    def may_begin(self, data: bytes) -> bool:
        """Whether a request that begins with `data` can still turn out to be for the lane."""
        return any(data.startswith(line) or line.startswith(data) for line in self._lines)

    def of(self, head: bytes) -> tuple[str, Match] | None:
        """(path, match) of a whole head, or None."""
        return self.by_line.get(head[: head.index(b"\r\n") + 2])


class Lane:
    """One connection, until it ends or is handed over."""

    def __init__(self, edge: Edge, routes: LaneRoutes, stream: LaneStream, settings: ServerSettings) -> None:
        self._edge = edge
        self._routes = routes
        self._stream = stream
        self._keep_alive_seconds_max = settings.keep_alive_seconds_max
        self._read_seconds_max = settings.request_read_seconds_max
        self._buffer = b""
        self._idle: trio.CancelScope | None = None

    def end_if_idle(self) -> None:
        """The server stops: an idle connection ends now, a busy one after its answer."""
        if self._idle is not None:
            self._idle.cancel()

    async def run(self) -> bytes | None:
        """Serve requests. Returns the bytes to hand over, or None if the connection is over."""
        try:
            while await self._serve_one():
                pass
        except HandedOverError:
            return self._buffer
        except LaneEndedError:
            pass
        return None

    async def _serve_one(self) -> bool:
        """Read, answer, send. False: the connection ends after this answer."""
        if not self._buffer:
            await self._receive_first()
        trouble: Refusal | None = None
        with trio.move_on_after(self._read_seconds_max) as scope:
            path, match, head, size = await self._head()
            if len(self._buffer) < size:
                await self._receive_up_to(size)
        if scope.cancelled_caught:
            # Whoever cannot finish a head gets no answer; a body that stops has a request to be answered.
            raise LaneEndedError
        body = self._buffer[size - int(head.length) : size]
        self._buffer = self._buffer[size:]
        request = Request("POST", path, "", head.headers, body)
        answer = await self._edge.answer(request, match, trouble)
        answer.close = answer.close or head.headers.get("connection", "").lower() == "close"
        await self._send(answer)
        return not answer.close
