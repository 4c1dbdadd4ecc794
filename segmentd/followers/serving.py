"""The sockets of a follower: accepts beside the owner, serves the lane, hands everything else to the owner.

Owns the follower's connections. Never knows what a request means.

Invariants:
1. A connection is served here, is on its way to the owner, or has ended.
2. What cannot be handed over ends without an answer, which tells its client to send the request again, and is counted.
3. After `leave` nothing is accepted; when `run` returns, no connection is left.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import structlog
import trio

from segmentd.followers.balance import OwnerBeside
from segmentd.followers.channel import Channel, ChannelEndedError, ChannelFullError
from segmentd.followers.messages import Handed
from segmentd.followers.tally import SharedRoom, Tally
from segmentd.http.edge import QUERIES, Edge
from segmentd.http.elsewhere import ACCEPTED, Arrived
from segmentd.http.lanes import Lanes
from segmentd.http.listening import RoomyListener
from segmentd.http.streams import BoundedStream
from segmentd.settings import ServerSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class FollowerServer:
    """All connections of a follower."""

    def __init__(
        self,
        edge: Edge,
        settings: ServerSettings,
        listener: socket.socket,
        channel: Channel,
        tally: Tally,
        slot: int,
        failed: Callable[[], None],
    ) -> None:
        """listener: the owner's. slot: of this follower in the tally. failed: told of each hand-over that failed."""
        self._failed = failed
        self._settings = settings
        self._channel = channel
        self._tally = tally
        self._slot = slot
        self._room = SharedRoom(tally, settings.connections_max)
        self._listener = RoomyListener(listener, self._room)
        self._unread = edge.holdings.answers
        self._owner = OwnerBeside(channel, tally, slot)
        self._lanes = Lanes(edge, settings, self._owner, paths=(QUERIES,))
        self._connections: trio.Nursery | None = None
        self._leaving = trio.Event()
        self._stopping = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `leave` was called and every connection has ended or was handed over."""
        async with trio.open_nursery() as lanes:
            lanes.start_soon(self._lanes.run)
            lanes.start_soon(self._owner.watch)
            async with trio.open_nursery() as connections:
                self._connections = connections
                await self._accept(connections, task_status)
                await self._listener.aclose()
                if self._stopping:
                    self._lanes.end()
                else:
                    self._lanes.release()
            lanes.cancel_scope.cancel()

    def leave(self, *, stopping: bool) -> None:
        """Accept no more. stopping: idle connections end; else they go to the owner like all others."""
        self._stopping = stopping
        self._leaving.set()

    def take(self, handed: Handed, descriptor: int) -> None:
        """Serve a connection that the owner has handed over."""
        self._room.entered()  # it may not be refused: it was counted all the time
        self._tally.received(self._slot)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
        assert self._connections is not None  # noqa: S101  # nothing is handed to a follower that is not ready
        self._connections.start_soon(self._connection, stream, Arrived(handed.begun, handed.hops))

    def lost(self) -> None:
        """A connection was handed over and did not arrive: the kernel had no descriptor to give."""
        self._tally.received(self._slot)
        self._failed()
        log.error("a connection was lost on its way")

    async def _accept(self, connections: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as acceptor:

            async def accept() -> None:
                await trio.serve_listeners(self._connection, [self._listener], handler_nursery=connections)

            acceptor.start_soon(accept)
            task_status.started()
            await self._leaving.wait()
            acceptor.cancel_scope.cancel()

    async def _connection(self, stream: trio.SocketStream, arrived: Arrived = ACCEPTED) -> None:
        """Serve one connection until it ends or goes to the owner."""
        bounded = BoundedStream(stream, stream.socket, self._settings.request_read_seconds_max, self._unread)
        try:
            with bounded.scope:
                rest = await self._lanes.serve(bounded, arrived)
                if rest is not None:
                    await self._hand_over(bounded, Handed(rest, arrived.hops + 1))
        except* Exception:  # logged with its traceback; the other connections go on
            log.exception("connection failed")
        finally:
            bounded.abort()
            self._room.left()

    async def _hand_over(self, stream: BoundedStream, handed: Handed) -> None:
        descriptor = stream.socket.fileno()
        if descriptor < 0:
            return
        try:
            await self._channel.send(handed, descriptor)
        except (ChannelEndedError, ChannelFullError) as error:
            self._failed()
            log.error("a connection could not be handed over", reason=str(error))
        else:
            self._tally.sent(self._slot)
