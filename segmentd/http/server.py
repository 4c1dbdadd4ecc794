"""The server: Hypercorn on Trio behind our own listening socket and accept loop.

    listener = open_listener("127.0.0.1", 0, connections_max)
    await nursery.start(partial(serve, app, listener, settings.server, shutdown=event.wait))

Owns sockets: how many, how long, and their end. Never looks at a request.

Invariants:
1. There are never more connections than `connections_max`, those of followers counted too; further ones wait in the
   kernel's backlog.
2. A client that stops reading loses its connection after `request_read_seconds_max`, whatever Hypercorn waits for.
3. After `shutdown` nothing is accepted, idle connections end at once, requests in flight get their answers, and at
   the latest `shutdown_seconds_max` later every socket is closed.
4. What breaks one connection is logged and breaks no other.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog
import trio
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from segmentd.http.app import App
from segmentd.http.collecting import FullCollections
from segmentd.http.elsewhere import ACCEPTED, Arrival, Arrived, Elsewhere, LocalRoom, Room
from segmentd.http.lanes import Lanes
from segmentd.http.listening import RoomyListener
from segmentd.http.protocol import Protocol, config_of
from segmentd.http.streams import BoundedStream
from segmentd.http.tls import Certificates, TlsStream
from segmentd.settings import ServerSettings

BACKLOG_MAX: Final = 4_096
_LOOK_SECONDS: Final = 0.05  # how often the end of the last connection is looked for while shutting down

_LISTEN_AGAIN_SECONDS: Final = 0.05

_log = structlog.get_logger(__name__)


def open_listener(host: str, port: int, connections_max: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(min(connections_max, BACKLOG_MAX))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def open_free_listener(host: str, port: int, connections_max: int, seconds_max: float) -> socket.socket:
    """As `open_listener`, waiting for the port to become free where it is not. Blocking. Raises OSError."""
    patience = time.monotonic() + seconds_max
    while True:
        try:
            return open_listener(host, port, connections_max)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= patience:
                raise
        time.sleep(_LISTEN_AGAIN_SECONDS)


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """`http://HOST:PORT` (`https` with TLS) with the real port."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    app: App,
    listener: socket.socket,
    settings: ServerSettings,
    *,
    shutdown: Callable[[], Awaitable[object]],
    certificates: Certificates | None = None,
    elsewhere: Elsewhere | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listener` until `shutdown()` returns; returns when every connection has ended.

    certificates: for a listener that speaks TLS and nothing else. elsewhere: other processes with the same listener.
    """
    room = LocalRoom(settings.connections_max) if elsewhere is None else elsewhere.room
    server = Server(app, settings, room, certificates, elsewhere)
    accepting = RoomyListener(listener, room)
    async with server.open() as connections:
        if elsewhere is not None:
            elsewhere.take_with(partial(server.take, connections))
        async with trio.open_nursery() as acceptor:

            async def accept() -> None:
                await trio.serve_listeners(server.connection, [accepting], handler_nursery=connections)

            acceptor.start_soon(accept)
            task_status.started()
            await shutdown()
            acceptor.cancel_scope.cancel()
        await accepting.aclose()
        if elsewhere is not None:
            connections.start_soon(elsewhere.leave)
        await server.finish(connections)


class Server:
    """Runs Hypercorn's protocol on accepted streams.

    With TLS there is no lane: it reads and writes the socket itself.
    """

    def __init__(
        self,
        app: App,
        settings: ServerSettings,
        room: Room,
        certificates: Certificates | None,
        elsewhere: Elsewhere | None,
    ) -> None:
        self._room = room
        self._certificates = certificates
        self._settings = settings
        self._edge = app.edge
        self._config = config_of(settings)
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)
        self._streams: set[BoundedStream] = set()
        self._collections = FullCollections()
        self._lanes = (
            Lanes(app.edge, settings, elsewhere, interludes=app.interludes)
            if settings.lane and certificates is None
            else None
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.Nursery]:
        """The nursery of the connections; below it runs what they have in common, until the last one has ended."""
        async with trio.open_nursery() as foundation:
            foundation.start_soon(self._collections.run)
            if self._lanes is not None:
                foundation.start_soon(self._lanes.run)
            async with trio.open_nursery() as connections:
                yield connections
            foundation.cancel_scope.cancel()

    def take(self, connections: trio.Nursery, arrival: Arrival, descriptor: int) -> None:
        """Serve a connection that another process has handed over. descriptor: of its socket, ours from now on."""
        self._room.entered()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        connections.start_soon(self.connection, stream, Arrived(arrival.begun, arrival.hops))

    async def connection(self, stream: trio.SocketStream, arrived: Arrived = ACCEPTED) -> None:
        """Serve one connection to its end: in the lane as long as it stays there, then in Hypercorn.

        It counts already, and does no more afterwards.
        """
        bounded = self._bounded(stream)
        self._streams.add(bounded)
        try:
            with bounded.scope:
                if self._lanes is not None:
                    begun = await self._lanes.serve(bounded, arrived)
                    if begun is None:
                        return
                    bounded.give_back(begun)
                try:
                    await Protocol(self._app, self._config, self._context, bounded, self._edge)
                finally:
                    self._collections.connection_ended()
        except* Exception:  # noqa: BLE001  # logged with its traceback; the other connections go on
            _log.exception("connection failed")
        finally:
            self._streams.discard(bounded)
            bounded.abort()
            self._room.left()

    def _bounded(self, stream: trio.SocketStream) -> BoundedStream:
        seconds_max, unread = self._settings.request_read_seconds_max, self._edge.holdings.answers
        if self._certificates is None:
            return BoundedStream(stream, stream.socket, seconds_max, unread)
        return TlsStream(stream, seconds_max, unread, self._certificates.context)

    async def finish(self, connections: trio.Nursery) -> None:
        """End idle connections now, the others when they are done, all of them when the time is over."""
        await self._context.terminated.set()
        if self._lanes is not None:
            self._lanes.end()
        connections.cancel_scope.deadline = trio.current_time() + self._settings.shutdown_seconds_max
        connections.start_soon(self._abort_at_the_end)

    async def _abort_at_the_end(self) -> None:
        """Hypercorn's shields outlive cancellation; a closed socket ends them."""
        while self._streams:
            try:
                await trio.sleep(_LOOK_SECONDS)
            except trio.Cancelled:
                for stream in list(self._streams):
                    stream.abort()
                raise
