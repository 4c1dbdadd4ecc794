"""The owner's side of followers: what the server, the store and the metrics of the owner ask of them.

Owns which connections go to which follower, and the memory that all processes share. Never serves a request.

Invariants:
1. A query leaves the owner only while events keep its loop busy or while it has many more connections than a follower,
   and only for a follower that is ready; alone, the owner answers as well.
2. A connection is handed over `HOPS_MAX` times at most: one that mixes events and queries stays with the owner.
3. A connection that cannot be handed over stays and is answered here.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

from segmentd.followers.balance import Balance
from segmentd.followers.ingest import Ingest
from segmentd.followers.messages import Handed
from segmentd.followers.readers import ReaderWatch
from segmentd.followers.supervision import Followers
from segmentd.followers.tally import OWNER, SharedRoom, Tally
from segmentd.http.elsewhere import Take
from segmentd.processmetrics import ALL, ProcessMetrics
from segmentd.runtime.write import CommitObserver
from segmentd.settings import Settings
from segmentd.storage.visible import Visible
from segmentd.telemetry import Telemetry

HOPS_MAX: Final = 4


class Neighbours:
    """Implements `segmentd.http.elsewhere.Elsewhere` with followers."""

    def __init__(
        self, settings: Settings, listener: socket.socket, telemetry: Telemetry, observer: CommitObserver
    ) -> None:
        """observer: told of commits after this one. Raises OSError."""
        self.visible, page = Visible.create()
        """What the store publishes to."""
        self.ingest = Ingest(observer)
        """What the store tells of commits."""
        # While one follower is replaced, there is one more.
        self._tally = tally = Tally.create(settings.server.followers + 1)
        self._balance = Balance()
        self._metrics = ProcessMetrics(telemetry.registry)
        self._followers = Followers(settings, listener, page, tally, self._metrics)
        self._readers = ReaderWatch()
        self.look_after_readers = self._readers.run
        self._metrics.watch(self._gauges)
        telemetry.shown = self._metrics
        telemetry.answered_elsewhere = self._metrics.answered
        self.room = SharedRoom(tally, settings.server.connections_max)
        self.restart = self._followers.restart
        self.reopen = self._followers.reopen
        self.leave = self._followers.leave
        self.scrape = self._followers.scrape

    async def run(self) -> None:
        """Have followers and balance with them, until `leave` or cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._balance.watch, self._look)
            await self._followers.run()
            nursery.cancel_scope.cancel()

    def wants(self, hops: int) -> bool:
        """See Elsewhere."""
        if hops >= HOPS_MAX:
            return False
        return self._balance.surplus > 0 or (self.ingest.is_busy() and bool(self._followers.ready))

    def give(self, descriptor: int, begun: bytes, hops: int) -> bool:
        """See Elsewhere."""
        follower = self._followers.least_loaded()
        if follower is None or not follower.hand_over(Handed(begun, hops), descriptor):
            return False
        self._metrics.handed_over.labels("follower").inc()
        self._balance.surplus -= 1
        return True

    def take_with(self, take: Take) -> None:
        """See Elsewhere."""
        self._followers.take = take

    def _look(self) -> None:
        follower = self._followers.least_loaded()
        self._balance.compare(self._tally.load(OWNER), None if follower is None else follower.load)
        if not self.ingest.is_busy():
            self._tally.take_queries()

    def _gauges(self) -> dict[str, dict[str, float]]:
        return {**self._followers.gauges(), "readers_long": {ALL: float(self._readers.long)}}

    def status(self) -> dict[str, int]:
        """See Elsewhere."""
        return {"ready": len(self._followers.ready), "wanted": self._followers.wanted}
