"""One request on a Hypercorn connection: read it within its bounds, have it answered, send the answer.

Owns the ASGI conversation. Never knows a route's meaning; the edge does.

Invariants:
1. A body is read whole before it is handled, never past its bound, and never for longer than the time for it.
2. A client that goes away while its request is handled cancels nothing: what was begun is finished and the answer is
   dropped. (quart-trio cancels the handler at a disconnect, and at `Connection: close` the last send with it.)
3. Where the body was not read to its end, the answer is sent first and the rest is drained for a bounded time, so
   that the client can read the answer before the connection is reset.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from segmentd.domain.refusals import Refusal, TooLarge
from segmentd.http.errors import body_timeout
from segmentd.http.exchange import Answer, Request
from segmentd.http.routing import Match

if TYPE_CHECKING:
    from segmentd.http.app import App

# Paths that nothing serves, and methods without a body, still have their bound.
OTHER_BODY_BYTES_MAX: Final = 65_536
DRAIN_SECONDS_MAX: Final = 2.0
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class ClientGoneError(Exception):
    """The client left before its request was whole; nothing was handled."""


class HttpConnection:
    """Serves one request; the name and the signature are Quart's (`asgi_http_class`)."""

    def __init__(self, app: App, scope: HTTPScope) -> None:
        self._edge = app.edge
        self._read_seconds_max = app.request_read_seconds_max
        self._scope = scope

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Read, answer, send."""
        request = request_of(self._scope)
        match = self._edge.find(request.path)
        trouble: Refusal | None = None
        try:
            request.body = await self._body(request, match, receive)
        except Refusal as refusal:
            trouble = refusal
        except ClientGoneError:
            return
        answer = await self._edge.answer(request, match, trouble)
        await self._send(answer, send, receive if trouble is not None else None)

    async def _body(self, request: Request, match: Match, receive: ASGIReceiveCallable) -> bytes:
        """The whole body. Raises TooLarge, RequestTimeout, ClientGoneError."""
        route = match.route
        limit = route.body_bytes_max if route is not None and route.body_bytes_max else OTHER_BODY_BYTES_MAX
        name = route.limit_name if route is not None else ""
        # h11 and h2 have checked that it is a number.
        if int(request.headers.get("content-length", 0)) > limit:
            raise _too_large(limit, name)
        with trio.move_on_after(self._read_seconds_max):
            return await _read(receive, limit, name)
        raise body_timeout(self._read_seconds_max)

    async def _send(self, answer: Answer, send: ASGISendCallable, unread: ASGIReceiveCallable | None) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        if answer.status not in _WITHOUT_BODY:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        if (answer.close or unread is not None) and self._scope["http_version"].startswith("1"):
            headers.append((b"connection", b"close"))  # HTTP/2 has no such header
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if unread is None:
            await send({"type": "http.response.body", "body": answer.body, "more_body": False})
            return
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await _drain(unread)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def request_of(scope: HTTPScope) -> Request:
    """The request without its body."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path = scope["raw_path"].decode("latin-1")
    if not path.startswith("/") and "://" in path:
        # A client that takes this for a proxy sends the whole address (RFC 9112 3.2.2).
        path = "/" + path.partition("://")[2].partition("/")[2]
    return Request(scope["method"], path, scope["query_string"].decode("latin-1"), headers)


async def _read(receive: ASGIReceiveCallable, limit: int, limit_name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        part = message.get("body", b"")
        if part:
            size += len(part)
            if size > limit:
                raise _too_large(limit, limit_name)
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _drain(receive: ASGIReceiveCallable) -> None:
    """Throw away what still comes, so that the client gets to reading the answer."""
    with trio.move_on_after(DRAIN_SECONDS_MAX):
        while True:
            message: Any = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def _too_large(limit: int, name: str) -> TooLarge:
    where = f" ([limits] {name})" if name else ""
    return TooLarge(f"The body is larger than {limit} bytes{where}.", name or "body", limit)
