"""Quart's views: each reads `quart.request`, asks the edge, and returns a Quart response.

Owns the reading of bodies on Quart's road, and the translation from and to Quart. Never decides what a request means.

Invariants:
1. A body is read whole before it is handled, never past its route's bound, and never for longer than the time for it;
   only a route that streams reads as it goes, and waits no longer than that for each part.
2. What Quart itself refuses (no such path, no such method) and what breaks in Quart is answered by the edge too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import quart
import structlog
import trio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException

from segmentd.domain.refusals import Refusal, TooLarge
from segmentd.http.connection import ClientGoneError, UploadRequest
from segmentd.http.edge import Edge
from segmentd.http.errors import BodyBrokenOff, Failed, body_timeout
from segmentd.http.exchange import Answer, Request
from segmentd.http.holdings import Held
from segmentd.http.routing import Match, Route
from segmentd.http.rules import PartConverter, raw_path_of, rule_of

if TYPE_CHECKING:
    from segmentd.http.app import App

# Paths that nothing serves, and methods without a body, still have their bound.
OTHER_BODY_BYTES_MAX: Final = 65_536
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_log = structlog.get_logger(__name__)

View = Callable[..., Awaitable[TrioResponse]]


class Views:
    """All views of an app."""

    def __init__(self, edge: Edge, read_seconds_max: float) -> None:
        """read_seconds_max: for a whole body; on a route that streams, for each part."""
        self._edge = edge
        self._read_seconds_max = read_seconds_max

    def register(self, app: App) -> None:
        """Tell Quart of every route, and of what to do where there is none."""
        app.url_map.converters["part"] = PartConverter
        templates = [route.template for route in self._edge.routes]
        for route in self._edge.routes:
            app.add_url_rule(
                rule_of(route.template, templates),
                endpoint=route.template,
                view_func=self._view(route),
                methods=[*route.operations, "OPTIONS"],
                provide_automatic_options=False,
            )
        app.register_error_handler(HTTPException, self._without_view)
        app.register_error_handler(Exception, self._broken)

    def _view(self, route: Route) -> View:
        async def view(**params: str) -> TrioResponse:
            return await self._answered(Match(route, params))

        return view

    async def _without_view(self, error: HTTPException) -> TrioResponse | HTTPException:
        """Quart found no view for the path, or none for the method."""
        if not quart.has_request_context():
            return error  # a WebSocket; nothing serves one
        return await self._answered(self._edge.find(raw_path_of(quart.request.scope)))

    async def _broken(self, error: Exception) -> TrioResponse:
        """What the edge did not catch, because it broke before or behind it."""
        _log.error("view failed", exc_info=error)
        match = self._edge.find(raw_path_of(quart.request.scope))
        return await self._answered(match, Failed("Something failed here; the log has the reason."))

    async def _answered(self, match: Match, trouble: Refusal | None = None) -> TrioResponse:
        asked = cast(UploadRequest, quart.request)
        request = request_of(asked)
        with closing(self._edge.holdings.open(request.path)) as body:
            try:
                if trouble is None:
                    await self._read(asked, request, match, body)
            except Refusal as refusal:
                body.close()
                trouble = refusal
            except ClientGoneError:
                return TrioResponse(b"")  # Nothing was handled, and the connection sends nothing.
            return response_of(await self._edge.answer(request, match, trouble), asked)

    async def _read(self, asked: UploadRequest, request: Request, match: Match, body: Held) -> None:
        """Give `request` its body. Raises TooLarge, RequestTimeout, Overloaded, ClientGoneError."""
        limit, name = OTHER_BODY_BYTES_MAX, ""
        if match.route is not None and match.route.body_bytes_max:
            limit, name = match.route.body_bytes_max, match.route.limit_name
        if (asked.content_length or 0) > limit:
            raise _too_large(limit, name)
        parts = _bounded(asked, limit, name)
        if match.route is not None and match.route.streams:
            request.stream = self._in_time(parts)
            return
        with trio.move_on_after(self._read_seconds_max):
            gathered = bytearray()
            async for part in parts:
                body.came(len(part))
                gathered += part
            request.body = bytes(gathered)
            return
        raise body_timeout(self._read_seconds_max)

    async def _in_time(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The parts, none of which may be waited for too long. Raises TooLarge, RequestTimeout, BodyBrokenOff."""
        while True:
            part: bytes | None = None
            try:
                with trio.fail_after(self._read_seconds_max):
                    part = await anext(parts, None)
            except trio.TooSlowError:
                raise body_timeout(self._read_seconds_max) from None
            except ClientGoneError:
                raise BodyBrokenOff("The client left before its body was whole.") from None
            if part is None:
                return
            yield part


async def _bounded(asked: UploadRequest, limit: int, limit_name: str) -> AsyncIterator[bytes]:
    size = 0
    async for part in asked.body:
        size += len(part)
        if size > limit:
            raise _too_large(limit, limit_name)
        yield part


def request_of(asked: quart.Request) -> Request:
    """Quart's request as the edge's, without its body. Quart's own headers have one more (`Remote-Addr`)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in asked.scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    client = asked.scope.get("client") or ("",)
    query = asked.query_string.decode("latin-1")
    return Request(asked.method, raw_path_of(asked.scope), query, headers, peer=client[0])


def response_of(answer: Answer, asked: UploadRequest) -> TrioResponse:
    """The edge's answer as Quart's response."""
    response = TrioResponse(answer.body if answer.stream is None else answer.stream, answer.status)
    if answer.stream is not None:
        response.timeout = None
    del response.headers["content-type"]
    for name, value in answer.headers:
        response.headers.add(name, value)
    if answer.status in _WITHOUT_BODY:
        del response.headers["content-length"]
    if (answer.close or not asked.body.complete) and asked.http_version.startswith("1"):
        response.headers["connection"] = "close"  # HTTP/2 has no such header
    return response


def _too_large(limit: int, name: str) -> TooLarge:
    where = f" ([limits] {name})" if name else ""
    return TooLarge(f"The body is larger than {limit} bytes{where}.", name or "body", limit)
