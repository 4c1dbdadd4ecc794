"""All lanes of a server: what they share, and how they end together.

Owns the reactor and the memory of heads. Never reads from or writes to a connection.
"""

from __future__ import annotations

from segmentd.http.busypolling import BusyPolling
from segmentd.http.edge import QUERIES, Edge
from segmentd.http.elsewhere import ACCEPTED, Arrived, Gives
from segmentd.http.lane import EVENTS, Lane
from segmentd.http.lanehead import Heads
from segmentd.http.reactor import Reactor
from segmentd.http.streams import BoundedStream
from segmentd.runtime.interludes import Interludes
from segmentd.settings import ServerSettings


class Lanes:
    """All lanes of a server."""

    def __init__(
        self,
        edge: Edge,
        settings: ServerSettings,
        elsewhere: Gives | None = None,
        paths: tuple[str, ...] = (QUERIES, EVENTS),
        interludes: Interludes | None = None,
    ) -> None:
        """elsewhere: other processes that answer queries. paths: what is served here.

        interludes: the pauses of long work, in which what can be answered at once is.
        """
        self._edge = edge
        self._heads = Heads(edge, paths)
        self._elsewhere = elsewhere
        self._settings = settings
        self._interludes = interludes or Interludes()
        self._reactor = Reactor(settings.keep_alive_seconds_max, BusyPolling(settings.busy_poll_microseconds_max / 1e6))
        self._open: set[Lane] = set()
        self._ending = self._releasing = False

    async def run(self) -> None:
        """What all lanes have in common; needed as long as any connection is served. Runs until cancelled."""
        self._interludes.fill(self._reactor.interlude)
        try:
            await self._reactor.run()
        finally:
            self._interludes.fill()

    async def serve(self, stream: BoundedStream, arrived: Arrived = ACCEPTED) -> bytes | None:
        """Serve a connection; returns the bytes to hand over, or None if it is over."""
        lane = Lane(self._edge, self._heads, stream, self._settings, self._reactor, self._elsewhere, arrived)
        if self._releasing:
            lane.release()
        if self._ending:
            lane.end()
        self._open.add(lane)
        try:
            return await lane.run()
        finally:
            self._open.discard(lane)

    def end(self) -> None:
        """The server stops: idle connections end now, busy ones after their answer."""
        self._ending = True
        for lane in self._open:
            lane.end()

    def release(self) -> None:
        """Hand all connections over, idle ones too."""
        self._releasing = True
        for lane in self._open:
            lane.release()
