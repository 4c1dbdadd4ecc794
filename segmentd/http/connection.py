"""Quart's connection, body and request, where they must do otherwise.

Owns what happens between Hypercorn's messages and a view. Never knows a route's meaning.

Invariants:
1. A client that goes away while its request is handled cancels nothing: what was begun is finished and the answer is
   dropped. (quart-trio cancels the handler at a disconnect, and at `Connection: close` the last send with it.)
2. No more than `BUFFERED_BYTES_MAX` of a body (and one message) wait for their reader; then the client waits.
3. Where the body was not read to its end, the answer is sent first and the rest is drained up to a bound of time and
   bytes, so that the client can read the answer before the connection is reset.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Request as QuartRequest
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody

from segmentd.http.rules import raw_path_of, routing_path
from segmentd.http.streams import DRAIN_BYTES_MAX, DRAIN_SECONDS_MAX

BUFFERED_BYTES_MAX: Final = 262_144


class ClientGoneError(Exception):
    """The client left before its request was whole."""


class UploadBody(TrioBody):
    """A request's body as it comes in. Read it with `async for`; raises ClientGoneError where the client left."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._taken = trio.Event()
        self._wanted = True
        self._drained = 0
        self._drain_ended = trio.Event()
        self.client_gone = False

    @property
    def complete(self) -> bool:
        """Whether all of it has come in, and the client is still there."""
        return self._complete.is_set() and not self.client_gone

    async def put(self, part: bytes) -> None:
        """Take in what came; waits for the reader where too much has not been read yet."""
        if not self._wanted:
            self._drained += len(part)
            if self._drained >= DRAIN_BYTES_MAX:
                self._drain_ended.set()
            return
        self.append(part)
        while len(self._data) >= BUFFERED_BYTES_MAX and self._wanted:
            self._taken = trio.Event()
            await self._taken.wait()

    def leave(self) -> None:
        """The client sends no more; that is an error for the reader unless the body is complete."""
        if not self._complete.is_set():
            self.client_gone = True
            self.set_complete()

    def set_complete(self) -> None:
        """All of it has come, or nothing more will."""
        super().set_complete()
        self._drain_ended.set()

    async def drain(self) -> None:
        """Throw away what was not read and what still comes, up to the bounds of draining."""
        self._wanted = False
        self.clear()
        self._taken.set()
        with trio.move_on_after(DRAIN_SECONDS_MAX):
            await self._drain_ended.wait()

    async def __anext__(self) -> bytes:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            if self.client_gone:
                raise ClientGoneError from None
            raise
        finally:
            self._taken.set()


class UploadRequest(TrioRequest):
    """A request whose body is an `UploadBody`."""

    body_class = UploadBody
    body: UploadBody


class HttpConnection(TrioASGIHTTPConnection):
    """One request on a Hypercorn connection, served by Quart."""

    def _create_request_from_scope(self, send: ASGISendCallable) -> QuartRequest:
        self.scope["path"] = routing_path(raw_path_of(self.scope))
        return super()._create_request_from_scope(send)

    async def handle_messages(  # type: ignore[override]
        self, _nursery: trio.Nursery, request: UploadRequest, receive: ASGIReceiveCallable
    ) -> None:
        """Feed the body; unlike the original this cancels nothing when the client leaves."""
        while True:
            message: Any = await receive()
            if message["type"] != "http.request":
                request.body.leave()
                return
            await request.body.put(message.get("body", b""))
            if not message.get("more_body", False):
                request.body.set_complete()

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: UploadRequest, send: ASGISendCallable
    ) -> None:
        """As the original; what was not read of the body is drained before the answer ends."""

        async def send_or_drain(message: Any) -> None:
            if request.body.client_gone:
                return
            if message["type"] == "http.response.body" and not message["more_body"] and not request.body.complete:
                await request.body.drain()
            await send(message)

        await super().handle_request(nursery, request, send_or_drain)
