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
import time
from email.utils import formatdate
from typing import Final, Protocol

import httptools
import trio

from segmentd.domain.refusals import Refusal
from segmentd.http.edge import Edge
from segmentd.http.errors import body_timeout
from segmentd.http.exchange import Answer, Request
from segmentd.http.routing import Match
from segmentd.settings import ServerSettings

HEAD_BYTES_MAX: Final = 8_192
HEADERS_MAX: Final = 48
RECEIVE_BYTES: Final = 65_536
_END_OF_HEAD: Final = b"\r\n\r\n"
# Everything that changes how a message is framed, or what the connection becomes.
_NOT_HERE: Final = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"})
_CONNECTIONS: Final = frozenset({"keep-alive", "close"})
_LENGTH: Final = re.compile(r"[0-9]{1,10}")
_PLAIN_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")

_date_made: tuple[int, str] = (0, "")


class LaneStream(Protocol):
    """What the lane needs of a connection."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def send_all(self, data: bytes) -> None: ...


class HandedOverError(Exception):
    """The request at the beginning of the buffer is not for the lane."""


class LaneEndedError(Exception):
    """The connection is over: the client left, was too slow, or its bytes made no sense."""


class _Message:
    """What llhttp finds in one request."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.plain = True
        """False: a header that is odd, repeated, or not for the lane."""
        self.complete = False
        self._parser = httptools.HttpRequestParser(self)

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.strip(b" \t")
        if name in self.headers or name in _NOT_HERE or not _PLAIN_VALUE.fullmatch(value):
            self.plain = False
        self.headers[name] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: bytes) -> bool:
        """False if llhttp does not take it."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            return False
        return True


class LaneRoutes:
    """The request lines that the lane knows, and where they lead."""

    def __init__(self, edge: Edge, paths: tuple[str, ...] = ("/v3/graphql", "/v3/events")) -> None:
        self._by_line = {f"POST {path} HTTP/1.1\r\n".encode(): (path, edge.find(path)) for path in paths}

    def may_begin(self, data: bytes) -> bool:
        """Whether a request that begins with `data` can still turn out to be for the lane."""
        return any(data.startswith(line) or line.startswith(data) for line in self._by_line)

    def of(self, head: bytes) -> tuple[str, Match]:
        """(path, match) of a whole head. Raises HandedOverError."""
        found = self._by_line.get(head[: head.index(b"\r\n") + 2])
        if found is None:
            raise HandedOverError
        return found


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
        except (LaneEndedError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return None

    async def _serve_one(self) -> bool:
        """Read, answer, send. False: the connection ends after this answer."""
        if not self._buffer:
            with trio.move_on_after(self._keep_alive_seconds_max) as self._idle:
                await self._receive()
            self._idle = None
            if not self._buffer:
                raise LaneEndedError
        with trio.move_on_after(self._read_seconds_max) as reading:
            head_bytes = await self._head()
        if reading.cancelled_caught:
            raise LaneEndedError
        path, match = self._routes.of(head_bytes)
        message = _Message()
        length = self._length(message, head_bytes, match)
        trouble = await self._body(message, len(head_bytes), length)
        body = b"" if trouble else self._buffer[len(head_bytes) : len(head_bytes) + length]
        self._buffer = self._buffer[len(head_bytes) + length :]
        answer = await self._edge.answer(Request("POST", path, "", message.headers, body), match, trouble)
        closes = answer.close or trouble is not None or message.headers.get("connection", "").lower() == "close"
        await self._stream.send_all(_written(answer, closes))
        return not closes

    async def _receive(self) -> None:
        """More bytes. Raises LaneEndedError at the end of the stream."""
        received = await self._stream.receive_some(RECEIVE_BYTES)
        if not received:
            raise LaneEndedError
        self._buffer += received

    async def _head(self) -> bytes:
        """The bytes of a whole head; they stay in the buffer. Raises HandedOverError."""
        while True:
            if not self._routes.may_begin(self._buffer):
                raise HandedOverError
            end = self._buffer.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
            if end >= 0:
                return self._buffer[: end + len(_END_OF_HEAD)]
            if len(self._buffer) >= HEAD_BYTES_MAX:
                raise HandedOverError
            await self._receive()

    def _length(self, message: _Message, head: bytes, match: Match) -> int:
        """Bytes of the body. Raises HandedOverError at the slightest doubt."""
        if not message.feed(head) or not message.plain or len(message.headers) > HEADERS_MAX:
            raise HandedOverError
        text = message.headers.get("content-length", "")
        connection = message.headers.get("connection", "keep-alive").lower()
        if not _LENGTH.fullmatch(text) or connection not in _CONNECTIONS or "host" not in message.headers:
            raise HandedOverError
        length = int(text)
        if match.route is None or length > match.route.body_bytes_max or message.complete != (length == 0):
            raise HandedOverError
        return length

    async def _body(self, message: _Message, start: int, length: int) -> Refusal | None:
        """Have the whole body in the buffer; returns what went wrong instead."""
        with trio.move_on_after(self._read_seconds_max):
            while len(self._buffer) < start + length:
                await self._receive()
            if length and not (message.feed(self._buffer[start : start + length]) and message.complete):
                # llhttp frames this otherwise than we do: nothing that follows can be trusted.
                raise LaneEndedError
            return None
        return body_timeout(self._read_seconds_max)


def _written(answer: Answer, closes: bool) -> bytes:
    """The answer as Hypercorn writes it."""
    lines = [f"HTTP/1.1 {answer.status} "]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines.append(f"content-length: {len(answer.body)}")
    if closes:
        lines.append("connection: close")
    lines.append(f"date: {_date()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body


def _date() -> str:
    """The header's value, made once a second."""
    global _date_made  # noqa: PLW0603  # a cache of one
    second = int(time.time())
    if _date_made[0] != second:
        _date_made = (second, formatdate(second, usegmt=True))
    return _date_made[1]


class Lanes:
    """All lanes of a server."""

    def __init__(self, edge: Edge, settings: ServerSettings) -> None:
        self._edge = edge
        self._routes = LaneRoutes(edge)
        self._settings = settings
        self._open: set[Lane] = set()

    async def serve(self, stream: LaneStream) -> bytes | None:
        """Serve a connection; returns the bytes to hand over, or None if it is over."""
        lane = Lane(self._edge, self._routes, stream, self._settings)
        self._open.add(lane)
        try:
            return await lane.run()
        finally:
            self._open.discard(lane)

    def end_idle(self) -> None:
        """The server stops: idle connections end now, busy ones after their answer."""
        for lane in self._open:
            lane.end_if_idle()
