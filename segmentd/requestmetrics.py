"""Counts of answered requests: how many, how long, by which road. Observed for every request, so by plain additions.

Owns the numbers and their form at a scrape. The library's own histogram and counter take a lock and several calls for
each observation, which is more than a tenth of what answering a query takes.

Invariant: only the event loop's thread observes, and a scrape is read on it, so there is nothing to lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

ROADS: Final = ("lane", "main")


class _Times:
    """The requests of one route, method and status."""

    __slots__ = ("counts", "seconds")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.seconds = 0.0


class RequestMetrics(Collector):
    """A histogram of times and a counter of roads, as one collector."""

    def __init__(self, bounds_seconds: Sequence[float]) -> None:
        """bounds_seconds: upper bounds of the buckets, ascending, without infinity."""
        self._bounds = [float(bound) for bound in bounds_seconds]
        self._names = [*map(str, self._bounds), "+Inf"]
        self._times: dict[tuple[str, str, int], _Times] = {}
        self._roads = dict.fromkeys(ROADS, 0)

    def observe(self, labels: tuple[str, str, int], seconds: float, road: str) -> None:
        """One answered request. labels: route template, method, status. road: one of ROADS."""
        times = self._times.get(labels)
        if times is None:
            times = self._times[labels] = _Times(len(self._names))
        times.counts[bisect_left(self._bounds, seconds)] += 1
        times.seconds += seconds
        self._roads[road] += 1

    def within(self, route: str) -> dict[float, float]:
        """Upper bound → how many requests to `route` were answered within it; the last bound is infinite."""
        found: dict[float, float] = {}
        for (template, _, _), times in self._times.items():
            if template == route:
                for bound, count in zip((*self._bounds, inf), accumulate(times.counts), strict=True):
                    found[bound] = found.get(bound, 0.0) + count
        return found

    def collect(self) -> Iterator[HistogramMetricFamily | CounterMetricFamily]:
        """As prometheus-client's own would show it."""
        histogram = HistogramMetricFamily(
            "segmentd_http_request_seconds",
            "Time from the whole request to its answer, by route template, method and status.",
            labels=["route", "method", "status"],
        )
        for (route, method, status), times in self._times.items():
            buckets = list(zip(self._names, accumulate(times.counts), strict=True))
            histogram.add_metric([route, method, str(status)], buckets, times.seconds)
        yield histogram
        roads = CounterMetricFamily(
            "segmentd_http_requests",
            "Answered requests by the road they came in by: lane (plain events and queries), main (all others).",
            labels=["road"],
        )
        for road, count in self._roads.items():
            roads.add_metric([road], count)
        yield roads
