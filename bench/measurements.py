"""Measurements and what is computed from them: medians of rounds, spread, ratios.

Owns the record of a run in memory and the list of metrics. Pure: no I/O.

Invariants:
1. A ratio compares medians of the same metric of the same work in the same run.
2. A ratio above 1 means that the first contestant is better, whichever way the metric counts.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """How a measured value is shown. `divisor` leads from the unit measured to the unit shown."""

    key: str
    title: str
    higher_is_better: bool
    digits: int = 0
    divisor: float = 1


class Measurement(msgspec.Struct, frozen=True):
    """What one contestant did in one round of one work. values: by metric key, beside others that are not shown."""

    part: str
    work: str
    contestant: str
    round: int
    values: dict[str, float]


class Failure(msgspec.Struct, frozen=True):
    """A measurement that could not be taken or must not be trusted."""

    part: str
    work: str
    contestant: str
    round: int
    reason: str


class Median(msgspec.Struct, frozen=True):
    """The median of the rounds, and how far apart they were: (largest - smallest) / median."""

    value: float
    spread: float
    rounds: int


FOREIGN_SHARE_MAX: Final = 0.1

METRICS: Final[dict[str, tuple[Metric, ...]]] = {
    "queries": (
        Metric("per_second", "queries/s", True),
        Metric("p50_us", "p50 ms", False, 2, 1000),
        Metric("p90_us", "p90 ms", False, 2, 1000),
        Metric("p99_us", "p99 ms", False, 2, 1000),
        Metric("p999_us", "p99.9 ms", False, 2, 1000),
    ),
    "events": (
        Metric("events_per_second", "events/s", True),
        Metric("p50_us", "p50 ms", False, 2, 1000),
        Metric("p99_us", "p99 ms", False, 2, 1000),
    ),
    "mixed": (
        Metric("per_second", "queries/s", True),
        Metric("p50_us", "queries p50 ms", False, 2, 1000),
        Metric("p99_us", "queries p99 ms", False, 2, 1000),
        Metric("p999_us", "queries p99.9 ms", False, 2, 1000),
        Metric("events_per_second", "events/s", True),
        Metric("events_p99_us", "events p99 ms", False, 2, 1000),
    ),
    "scale": (
        Metric("empty_start_seconds", "start to ready, empty, s", False, 2),
        Metric("start_seconds", "start to ready, s", False, 2),
        Metric("identifiers_per_second", "identifiers/s at start", True),
        Metric("resident_bytes", "RSS after load, MiB", False, 0, 1 << 20),
        Metric("anonymous_bytes_per_membership", "own memory, B/membership", False, 1),
        Metric("largest_process_bytes_per_membership", "of it one process, B/membership", False, 1),
        Metric("restarted_bytes_per_membership", "own memory after start, B/membership", False, 1),
        Metric("disk_bytes_per_membership", "disk, B/membership", False, 1),
        Metric("per_second", "queries/s", True),
        Metric("p99_us", "queries p99 ms", False, 2, 1000),
        Metric("events_per_second", "events/s (requests of 500)", True),
    ),
}


def median_of(values: Sequence[float]) -> Median:
    """values: one a round, at least one."""
    middle = statistics.median(values)
    return Median(middle, (max(values) - min(values)) / middle if middle else 0.0, len(values))


def ratio(metric: Metric, first: Median | None, other: Median | None) -> float | None:
    """How many times better the first is. None where one is missing or zero."""
    if first is None or other is None or not first.value or not other.value:
        return None
    return first.value / other.value if metric.higher_is_better else other.value / first.value


class Results:
    """All measurements of a run, in the order in which they were taken."""

    def __init__(self, measurements: Iterable[Measurement] = (), failures: Iterable[Failure] = ()) -> None:
        self.measurements = list(measurements)
        self.failures = list(failures)

    def works(self) -> list[tuple[str, str]]:
        """(part, work), each once."""
        measured = [(entry.part, entry.work) for entry in self.measurements]
        failed = [(entry.part, entry.work) for entry in self.failures]
        return sorted(dict.fromkeys([*measured, *failed]), key=lambda work: list(METRICS).index(work[0]))

    def disturbed(self) -> float:
        """The share of measurements during which something else took a tenth of the servers' core or more."""
        shares = [entry.values["foreign_cpu"] for entry in self.measurements if "foreign_cpu" in entry.values]
        return sum(share >= FOREIGN_SHARE_MAX for share in shares) / len(shares) if shares else 0.0

    def median(self, part: str, work: str, contestant: str, key: str) -> Median | None:
        """None where it was not measured."""
        values = [
            entry.values[key]
            for entry in self.measurements
            if (entry.part, entry.work, entry.contestant) == (part, work, contestant) and key in entry.values
        ]
        return median_of(values) if values else None
