"""Heads of requests in the lane: which are plain enough to be served there, and what they say.

A client sends the same head again and again, so what was found out about one is kept under its very bytes. Only heads
that the lane serves are kept; the C parser (llhttp) has read each of them.
"""

from __future__ import annotations

import re
from typing import Final

import httptools
import msgspec

from segmentd.http.edge import Edge
from segmentd.http.routing import Match

HEADERS_MAX: Final = 48
KEPT_MAX: Final = 1_024
# Everything that changes how a message is framed, or what the connection becomes.
_NOT_HERE: Final = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"})
_CONNECTIONS: Final = frozenset({"keep-alive", "close"})
_LENGTH: Final = re.compile(r"[0-9]{1,10}")
_PLAIN_VALUE: Final = re.compile(rb"[\x20-\x7e\t]*")


class HandedOverError(Exception):
    """The request at the beginning of the buffer is not for the lane."""


class Head(msgspec.Struct, frozen=True):
    """What a head says. length: bytes of the body. closes: the client wants the connection to end."""

    path: str
    match: Match
    headers: dict[str, str]
    length: int
    closes: bool


class _Message:
    """What llhttp finds in one head."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.plain = True
        """False: a header that is odd, repeated, or not for the lane."""
        self.complete = False

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.strip(b" \t")
        if name in self.headers or name in _NOT_HERE or not _PLAIN_VALUE.fullmatch(value):
            self.plain = False
        self.headers[name] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        self.complete = True


class Heads:
    """Reads heads, and remembers those that it has read."""

    def __init__(self, edge: Edge, paths: tuple[str, ...]) -> None:
        self._by_line = {f"POST {path} HTTP/1.1\r\n".encode(): (path, edge.find(path)) for path in paths}
        self._kept: dict[bytes, Head] = {}

    def may_begin(self, data: bytes) -> bool:
        """Whether a request that begins with `data` can still turn out to be for the lane."""
        return any(data.startswith(line) or line.startswith(data) for line in self._by_line)

    def read(self, head: bytes) -> Head:
        """head: up to and with the empty line. Raises HandedOverError at the slightest doubt."""
        kept = self._kept.get(head)
        if kept is None:
            kept = self._parse(head)
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[head] = kept
        return kept

    def _parse(self, head: bytes) -> Head:
        found = self._by_line.get(head[: head.index(b"\r\n") + 2])
        ends = head.count(b"\r\n")
        if head.count(b"\n") != ends or head.count(b"\r") != ends:
            # A bare LF or CR ends a line for some readers and not for others.
            raise HandedOverError
        message = _Message()
        try:
            httptools.HttpRequestParser(message).feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise HandedOverError from None
        headers = message.headers
        text = headers.get("content-length", "")
        connection = headers.get("connection", "keep-alive").lower()
        if (
            found is None
            or not message.plain
            or len(headers) > HEADERS_MAX
            or "host" not in headers
            or not _LENGTH.fullmatch(text)
            or connection not in _CONNECTIONS
        ):
            raise HandedOverError
        path, match = found
        length = int(text)
        # llhttp must frame the message as we do; what is too large is told by the main road.
        if message.complete != (length == 0) or match.route is None or length > match.route.body_bytes_max:
            raise HandedOverError
        return Head(path, match, headers, length, connection == "close")
