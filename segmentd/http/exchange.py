"""One request and one answer, free of any framework.

Owns the two types that every handler works with, so that each road in (Hypercorn, later a faster one) calls the very
same handlers. Never touches a socket.

Invariants:
1. Header names of a `Request` are lower case; a header that came twice is joined with ", ".
2. The body of a `Request` is whole before a handler sees it, but on a route that `streams`: there `stream` gives the
   parts as they come, and ends with a refusal where they stop coming or are too many.
3. An `Answer` has all its headers except `content-length` and what belongs to the connection.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Literal
from urllib.parse import parse_qsl

import msgspec

from segmentd.http.auth import Key

JSON: Final = ("content-type", "application/json")
PROBLEM_JSON: Final = ("content-type", "application/problem+json")

Header = tuple[str, str]
QUERY_FIELDS_MAX: Final = 64
# Long enough for UUIDs and trace ids, and nothing that could break a log line or a header.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# A random beginning for the process and a count: unique without a system call for each request.
_PROCESS: Final = secrets.token_hex(6)
_COUNT: Final = itertools.count(1)


class Request(msgspec.Struct):
    """What a client asks. `path` is as on the wire, still percent-encoded, without the query."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    params: dict[str, str] = {}
    """Parts of the path that the route names, decoded."""
    request_id: str = ""
    key: Key | None = None
    peer: str = ""
    """The address of the other end of the connection."""
    road: Literal["lane", "main"] = "main"
    """How it came in; decides nothing."""
    stream: AsyncIterator[bytes] | None = None
    """The body of a request to a route that streams; read at most once."""

    def query_fields(self) -> dict[str, str]:
        """The query's fields, decoded; the last one of a name wins. Raises ValueError: not UTF-8, or too many."""
        pairs = parse_qsl(
            self.query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX, separator="&"
        )
        return dict(pairs)


class Answer(msgspec.Struct):
    """What goes back. `close`: the connection ends after it. `stream`: the body in parts, instead of `body`."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = (JSON,)
    close: bool = False
    stream: AsyncGenerator[bytes, None] | None = None


class Waiting:
    """In the place of an answer that comes later."""


WAITING: Final = Waiting()


def request_id_of(headers: dict[str, str]) -> str:
    """The client's `x-request-id` if it is sane, else a new one."""
    given = headers.get("x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}-{next(_COUNT):x}"


def json_answer(status: int, content: object, headers: tuple[Header, ...] = ()) -> Answer:
    """`content` as JSON with `status`."""
    return Answer(status, msgspec.json.encode(content), (JSON, *headers))
