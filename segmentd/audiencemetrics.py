"""Freshness of audiences, as Prometheus reads it at `/metrics`.

Owns the two metrics and the bound on how many audiences they name. An audience's name is a label here, and the only
place among the metrics where one is: who must not read the names is kept from the port, or `[metrics] audiences_max`
is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Known(Protocol):
    """An audience. Times are milliseconds since the epoch, 0 for never."""

    @property
    def audience_id(self) -> str: ...
    @property
    def last_event_ms(self) -> int: ...
    @property
    def last_import_ms(self) -> int: ...


class KnowsAudiences(Protocol):
    """Whom to ask."""

    def audiences_count(self) -> int:
        """How many there are."""

    def fresh(self, first: Iterable[str], audiences_max: int) -> Sequence[Known]:
        """At most so many, those of `first` before the others; the same ones each time."""


class AudienceMetrics(Collector):
    """Asks at each scrape."""

    def __init__(self, audiences: KnowsAudiences, of_segments: Callable[[], Iterable[str]], audiences_max: int) -> None:
        """of_segments: the ids of the audiences that segments show."""
        self._audiences = audiences
        self._of_segments = of_segments
        self._audiences_max = audiences_max

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Up to two numbers for each audience, and how many audiences have none for want of room."""
        family = GaugeMetricFamily(
            "segmentd_audience_as_of_timestamp_seconds",
            "As of when an audience is known, by source: the largest ts of its events (event), the T of its latest list"
            " (import). At most [metrics] audiences_max audiences, those of segments first.",
            labels=["audience", "source"],
        )
        for known in self._audiences.fresh(self._of_segments(), self._audiences_max):
            for source, at_ms in (("event", known.last_event_ms), ("import", known.last_import_ms)):
                if at_ms:
                    family.add_metric([known.audience_id, source], at_ms / 1000)
        yield family
        left_out = (
            "Audiences beyond [metrics] audiences_max, which segmentd_audience_as_of_timestamp_seconds leaves out."
        )
        count = max(0, self._audiences.audiences_count() - self._audiences_max)
        yield GaugeMetricFamily("segmentd_audiences_left_out", left_out, value=count)
