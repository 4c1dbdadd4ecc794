"""The server: Hypercorn on Trio behind our own listening socket and accept loop.

    listener = open_listener("127.0.0.1", 0, connections_max)
    await nursery.start(partial(serve, app, listener, settings.server, shutdown=event.wait))

Owns sockets: how many, how long, and their end. Never looks at a request.

Invariants:
1. There are never more connections than `connections_max`; further ones wait in the kernel's backlog.
2. A client that stops reading loses its connection after `request_read_seconds_max`, whatever Hypercorn waits for.
3. After `shutdown` nothing is accepted, idle connections end at once, requests in flight get their answers, and at
   the latest `shutdown_seconds_max` later every socket is closed.
4. What breaks one connection is logged and breaks no other.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from segmentd.http.app import App
from segmentd.http.lane import Lanes
from segmentd.settings import ServerSettings

HEADER_BYTES_MAX: Final = 32_768  # request line and headers together; a GET with a query text needs more than 8 KiB
# Hypercorn ends a connection after this many requests; SDKs keep theirs for days.
REQUESTS_PER_CONNECTION_MAX: Final = 1_000_000
BACKLOG_MAX: Final = 4_096
_LOOK_SECONDS: Final = 0.05  # how often the end of the last connection is looked for while shutting down

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


def url_of(listener: socket.socket) -> str:
    """`http://HOST:PORT` with the real port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: App,
    listener: socket.socket,
    settings: ServerSettings,
    *,
    shutdown: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listener` until `shutdown()` returns; returns when every connection has ended."""
    server = Server(app, settings)
    accepting = _BoundedListener(listener, settings.connections_max)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as acceptor:

            async def connect(stream: trio.SocketStream) -> None:
                try:
                    await server.connection(stream)
                finally:
                    accepting.ended()

            async def accept() -> None:
                await trio.serve_listeners(connect, [accepting], handler_nursery=connections)

            acceptor.start_soon(accept)
            task_status.started()
            await shutdown()
            acceptor.cancel_scope.cancel()
        await accepting.aclose()
        await server.finish(connections)


class Server:
    """Runs Hypercorn's protocol on accepted streams."""

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self._settings = settings
        self._config = _config(settings)
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")
        self._context = WorkerContext(None)
        self._streams: set[BoundedStream] = set()
        self._lanes = Lanes(app.edge, settings) if settings.lane else None

    async def connection(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end: in the lane as long as it stays there, then in Hypercorn."""
        bounded = BoundedStream(stream, self._settings.request_read_seconds_max)
        self._streams.add(bounded)
        try:
            with bounded.scope:
                if self._lanes is not None:
                    begun = await self._lanes.serve(bounded)
                    if begun is None:
                        return
                    bounded.give_back(begun)
                await _Protocol(self._app, self._config, self._context, ConnectionState({}), bounded)  # type: ignore[arg-type]
        except* Exception:  # noqa: BLE001  # logged with its traceback; the other connections go on
            _log.exception("connection failed")
        finally:
            self._streams.discard(bounded)
            bounded.abort()

    async def finish(self, connections: trio.Nursery) -> None:
        """End idle connections now, the others when they are done, all of them when the time is over."""
        await self._context.terminated.set()
        if self._lanes is not None:
            self._lanes.end_idle()
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


class _Protocol(TCPServer):
    """Hypercorn's connection, which ends when its client has left.

    The original keeps task and socket of a departed client until the keep-alive time is over, because its idle timer
    still runs; departed clients would then take up the room of new ones.
    """

    _reads = True

    async def _read_data(self) -> None:
        await super()._read_data()
        self._reads = False
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if self._reads or not isinstance(event, Updated):
            await super().protocol_send(event)


class BoundedStream:
    """A socket stream on which sending takes a bounded time, and whose connection ends when sending fails.

    Has just what Hypercorn's `TCPServer` uses. Hypercorn's reader waits for ever where an answer could not be sent and
    another request was pipelined behind it; so a failed send cancels `scope`, in which the whole connection runs.
    """

    def __init__(self, stream: trio.SocketStream, send_seconds_max: float) -> None:
        self._stream = stream
        self._send_seconds_max = send_seconds_max
        self.socket = stream.socket
        self.scope = trio.CancelScope()
        self._given_back = b""

    def give_back(self, received: bytes) -> None:
        """Let `received` be received once more, before everything else."""
        self._given_back = received

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As trio's."""
        if self._given_back:
            received, self._given_back = self._given_back, b""
            return received
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        """As trio's. Raises BrokenResourceError where the client does not read in time; the socket is closed then."""
        try:
            with trio.fail_after(self._send_seconds_max):
                await self._stream.send_all(data)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.abort()
            self.scope.cancel()
            raise trio.BrokenResourceError("the client does not read") from error

    async def send_eof(self) -> None:
        """As trio's."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """As trio's."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Close the socket now; whoever waits for it wakes up."""
        self.socket.close()


class _BoundedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only as long as there is room; `ended` makes room."""

    def __init__(self, listener: socket.socket, connections_max: int) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._room = trio.Semaphore(connections_max)

    async def accept(self) -> trio.SocketStream:
        await self._room.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._room.release()
            raise

    def ended(self) -> None:
        """One accepted connection has ended."""
        self._room.release()

    async def aclose(self) -> None:
        await self._listener.aclose()


def _config(settings: ServerSettings) -> Config:
    config = Config()
    config.accesslog = None  # the edge writes the access log; Hypercorn's costs a quarter of its throughput
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_seconds_max
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.h2_max_header_list_size = HEADER_BYTES_MAX
    return config
