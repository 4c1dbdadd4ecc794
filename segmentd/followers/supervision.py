"""The owner's followers: as many as are wanted, whatever happens to them.

Owns starting, restarting and ending followers, and what the owner asks all of them. Never serves a request, and never
touches the store.

Invariants:
1. A follower that ends by itself is started again, later each time, until the service stops.
2. A follower is replaced by one that is ready already; it hands all its connections to the owner and ends.
3. When `run` returns, every follower has ended and was waited for.
4. After `reopen` no follower has files of an older generation open: who does not say so in time is killed.
"""

from __future__ import annotations

import socket
from typing import Final

import structlog
import trio

from segmentd.followers.follower import Follower, started
from segmentd.followers.messages import Begin, Handed
from segmentd.followers.tally import FIRST_SLOT, Tally
from segmentd.followers.tally import OWNER as OWNER_SLOT
from segmentd.http.elsewhere import Take
from segmentd.processmetrics import ALL, OWNER, Family, ProcessMetrics
from segmentd.settings import Settings

_PAUSE_SECONDS_FIRST: Final = 0.1
_PAUSE_SECONDS_MAX: Final = 5.0
_STEADY_SECONDS: Final = 10.0  # whoever ran for so long did not die of its start
_REOPEN_SECONDS_MAX: Final = 10.0
_LOOK_SECONDS: Final = 1.0
_SCRAPE_SECONDS_MAX: Final = 1.0
# A follower answers between two requests; one that says nothing for so long is stuck.
_SILENCE_SECONDS_MAX: Final = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Followers:
    """All of them. Start `run` as a task when the store is recovered."""

    def __init__(
        self, settings: Settings, listener: socket.socket, visible: int, tally: Tally, metrics: ProcessMetrics
    ) -> None:
        """visible: the descriptor of the page that says what may be seen."""
        self._settings = settings
        self._listener = listener
        self._visible = visible
        self._tally = tally
        self._metrics = metrics
        self.take: Take
        """Serves what followers hand over."""
        self.wanted: Final = settings.server.followers
        self._alive: list[Follower] = []
        self._slots = list(range(tally.processes_max - 1, 0, -1))
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._restarting = False
        self._left = trio.Event()
        self._ended = trio.Event()
        self._became_ready = trio.Event()

    @property
    def ready(self) -> list[Follower]:
        """Those that take connections now."""
        return [follower for follower in self._alive if follower.ready]

    def least_loaded(self) -> Follower | None:
        """The one with the fewest connections; None if none is ready."""
        return min(self.ready, key=lambda follower: follower.load, default=None)

    async def run(self) -> None:
        """Until `leave` or cancelled. Set `take` before."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for _ in range(self.wanted):
                    nursery.start_soon(self._keep)
                nursery.start_soon(self._look)
                await self._left.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._ended.set()

    async def leave(self) -> None:
        """The service stops: have all followers end; returns when they have."""
        self._stopping = True
        if self._nursery is None:
            return
        async with trio.open_nursery() as nursery:
            for follower in self._alive:
                nursery.start_soon(self._leave, follower, True)
        self._left.set()
        await self._ended.wait()

    async def restart(self) -> None:
        """Replace all of them, one after the other; each goes on until its replacement is ready."""
        if self._restarting or self._stopping or self._nursery is None:
            return
        self._restarting = True
        try:
            for follower in list(self._alive):
                await self._replace(follower, self._nursery)
            log.info("followers restarted", followers=len(self._alive))
        finally:
            self._restarting = False

    async def reopen(self, generation: str) -> None:
        """Returns when no follower has files of an older generation open any more."""
        async with trio.open_nursery() as nursery:
            for follower in self._alive:
                nursery.start_soon(_reopen, follower, generation)

    async def scrape(self) -> None:
        """Have the metrics be as of now; who does not answer in time shows what it told last."""
        async with trio.open_nursery() as nursery:
            for follower in self._alive:
                nursery.start_soon(follower.scrape, _SCRAPE_SECONDS_MAX)

    def gauges(self) -> dict[str, dict[str, float]]:
        """Numbers for the metrics, see ProcessMetrics."""
        connections = {OWNER: self._tally.open_in(OWNER_SLOT)}
        connections.update({follower.name: self._tally.open_in(follower.slot) for follower in self._alive})
        return {
            "connections": {name: float(count) for name, count in connections.items()},
            "followers_wanted": {ALL: float(self.wanted)},
            "followers_ready": {ALL: float(len(self.ready))},
        }

    def taken(self, connection: Handed, descriptor: int) -> None:
        """See Owner."""
        self._metrics.handed_over.labels(OWNER).inc()
        self.take(connection, descriptor)

    def lost_on_its_way(self) -> None:
        """See Owner."""
        self._metrics.failed.inc()

    def became_ready(self, follower: Follower) -> None:
        """See Owner."""
        log.info("follower ready", follower=follower.name, pid=follower.pid)
        self._became_ready.set()
        self._became_ready = trio.Event()

    def counted(self, follower: Follower, families: list[Family]) -> None:
        """See Owner."""
        self._metrics.heard(follower.name, families)

    async def _keep(self) -> None:
        """Have a follower until it is replaced or the service stops."""
        pause = _PAUSE_SECONDS_FIRST
        while not self._stopping:
            begun = trio.current_time()
            if await self._live() or self._stopping:
                return
            if trio.current_time() - begun >= _STEADY_SECONDS:
                pause = _PAUSE_SECONDS_FIRST
            self._metrics.restarts.inc()
            await trio.sleep(pause)
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    async def _live(self) -> bool:
        """One follower's life. Returns whether it was told to end."""
        slot = self._slots.pop()
        name = f"follower-{slot - FIRST_SLOT}"
        try:
            async with started(name, slot, self._tally, self._listener, self._visible, self) as follower:
                self._alive.append(follower)
                try:
                    await follower.converse(Begin(name, slot, self._settings))
                    status = await follower.end()
                finally:
                    self._alive.remove(follower)
                    self._metrics.ended(name)
        except OSError as error:
            log.error("follower cannot be started", follower=name, reason=error.strerror or str(error))
            return False
        finally:
            lost = self._tally.clear(slot)
            self._slots.append(slot)
            if lost:
                self._metrics.lost.inc(lost)
        say = log.info if follower.leaving else log.error
        say("follower ended", follower=name, status=status, connections_lost=lost)
        return follower.leaving

    async def _replace(self, follower: Follower, nursery: trio.Nursery) -> None:
        # Should it end by itself meanwhile, its replacement is on its way.
        follower.leaving = True
        known = set(self._alive)
        nursery.start_soon(self._keep)
        while known.issuperset(self.ready):
            await self._became_ready.wait()
        await self._leave(follower, False)

    async def _leave(self, follower: Follower, stopping: bool) -> None:
        await follower.leave(stopping=stopping, seconds_max=self._settings.server.shutdown_seconds_max)

    async def _look(self) -> None:
        """Keep the metrics of those fresh that may be killed, and end those that say nothing any more."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            await self.scrape()
            for follower in self.ready:
                if trio.current_time() - follower.heard_at > _SILENCE_SECONDS_MAX:
                    log.error("follower says nothing any more and is killed", follower=follower.name)
                    follower.kill()


async def _reopen(follower: Follower, generation: str) -> None:
    if not await follower.reopen(generation, _REOPEN_SECONDS_MAX) and not follower.ended:
        log.error("follower kept replaced files and is killed", follower=follower.name)
        follower.kill()
        await follower.gone()
