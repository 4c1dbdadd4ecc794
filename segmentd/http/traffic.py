"""What the charts of traffic count, read from the metrics. Counts nothing itself."""

from __future__ import annotations

from typing import Final

from segmentd.runtime.history import Counts
from segmentd.telemetry import Telemetry

QUERY_ROUTE: Final = "/v3/graphql"


def counts_of(telemetry: Telemetry) -> Counts:
    """The counters as of now."""
    answered = sorted(telemetry.answered(QUERY_ROUTE).items())
    return Counts(
        events=telemetry.events_by_outcome(),
        queries=tuple(count for _, count in answered),
        query_bounds_seconds=tuple(bound for bound, _ in answered),
    )
