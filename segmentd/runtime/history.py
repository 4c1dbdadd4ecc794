"""History: what the charts show. Rates of the last minutes, and sizes of segments over the last day.

Owns two bounded rings in memory and the two loops that fill them. Never keeps an event, an identifier or a query, and
writes nothing to disk: after a restart the charts begin anew. Counts come from whoever counts, as functions.

Invariants:
1. A ring holds at most `points_max` samples; the sizes of a segment that is gone go at the next sample.
2. A sample's time is when it was taken, and rates are divided by the time that really passed.
3. The sizes of a segment belong to the last so many times: one that was made later has fewer.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from segmentd.domain.refusals import Refusal
from segmentd.settings import ConsoleSettings

QUANTILES: Final = (0.5, 0.95, 0.99)
OUTCOMES: Final = ("accepted", "dropped", "invalid", "refused")


class Counts(msgspec.Struct, frozen=True):
    """Counters as of now; they only rise."""

    events: Mapping[str, float]
    """Events by outcome."""
    queries: tuple[float, ...]
    """Answered queries in at most so many seconds, for each bound, cumulative; the last one counts all."""
    query_bounds_seconds: tuple[float, ...]
    """Ascending; the last one is infinite."""


class TrafficPoint(msgspec.Struct, frozen=True):
    """What happened between two samples."""

    at: float
    """End of the interval, seconds since the epoch."""
    events_per_second: dict[str, float]
    queries_per_second: float
    query_seconds: tuple[float | None, ...]
    """The latency at each of QUANTILES; None if there was no query."""


class History:
    """Plain calls on the loop's thread; `run` fills it until it is cancelled."""

    def __init__(
        self,
        settings: ConsoleSettings,
        counts: Callable[[], Counts],
        sizes: Callable[[], Awaitable[Mapping[str, int]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """sizes: segment id → qualified members now; where it raises a refusal, there is no sample.

        clock: seconds since the epoch.
        """
        self.settings = settings
        self._counts = counts
        self._sizes_now = sizes
        self._clock = clock
        self._traffic: deque[TrafficPoint] = deque(maxlen=settings.traffic_points_max)
        self._times: deque[float] = deque(maxlen=settings.size_points_max)
        self._sizes: dict[str, array[int]] = {}

    async def run(self) -> None:
        """Sample until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_traffic)
            nursery.start_soon(self._sample_sizes)

    def traffic(self, since: float = 0.0) -> list[TrafficPoint]:
        """The points after `since`, oldest first."""
        return [point for point in self._traffic if point.at > since]

    def sizes(self, segment_id: str) -> list[tuple[float, int]]:
        """(time, size) of a segment, oldest first; empty if it is unknown or new."""
        found = self._sizes.get(segment_id, ())
        return list(zip(list(self._times)[len(self._times) - len(found) :], found, strict=True))

    async def add_sizes(self) -> None:
        """Take one sample of all sizes."""
        try:
            now = await self._sizes_now()
        except Refusal:
            # The store cannot say now; the chart has a gap.
            return
        self._times.append(self._clock())
        kept: dict[str, array[int]] = {}
        for segment_id, size in now.items():
            ring = self._sizes.get(segment_id)
            if ring is None:
                ring = array("q")
            elif len(ring) >= self.settings.size_points_max:
                del ring[0]
            ring.append(size)
            kept[segment_id] = ring
        self._sizes = kept

    async def _sample_sizes(self) -> None:
        while True:
            await self.add_sizes()
            await trio.sleep(self.settings.size_seconds)

    async def _sample_traffic(self) -> None:
        before, then = self._counts(), self._clock()
        while True:
            await trio.sleep(self.settings.traffic_seconds)
            counts, now = self._counts(), self._clock()
            if now > then:  # A clock that was set back gives no rate.
                self._traffic.append(point_between(before, counts, now, now - then))
            before, then = counts, now


def point_between(before: Counts, after: Counts, at: float, seconds: float) -> TrafficPoint:
    """What happened in `seconds` between two counts."""
    events = {name: _rate(after.events.get(name, 0), before.events.get(name, 0), seconds) for name in OUTCOMES}
    if len(before.queries) == len(after.queries):
        differences = [late - early for early, late in zip(before.queries, after.queries, strict=True)]
    else:
        differences = list(after.queries)  # The first queries came in between.
    total = differences[-1] if differences else 0.0
    quantiles = tuple(quantile(share, after.query_bounds_seconds, differences) for share in QUANTILES)
    return TrafficPoint(at, events, round(total / seconds, 3), quantiles)


def quantile(share: float, bounds: Sequence[float], cumulative: Sequence[float]) -> float | None:
    """The latency that `share` of the queries stayed below, linear inside its bucket; None without queries.

    Beyond the last finite bound it is that bound: nothing more is known.
    """
    if not cumulative or cumulative[-1] <= 0:
        return None
    wanted = share * cumulative[-1]
    at = bisect_left(cumulative, wanted)
    if at >= len(bounds) - 1:
        return bounds[-2]
    below = bounds[at - 1] if at else 0.0
    counted_below = cumulative[at - 1] if at else 0.0
    inside = cumulative[at] - counted_below
    return round(below + (bounds[at] - below) * (wanted - counted_below) / inside, 6)


def _rate(after: float, before: float, seconds: float) -> float:
    return round(max(after - before, 0.0) / seconds, 3)
