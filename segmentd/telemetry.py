"""Metrics: what Prometheus reads at `/metrics`.

Owns the registry, every metric's name and help, and the observers that other parts call. Never reads a clock and never
names a key, an identifier or a segment: a metric may be read by anybody who reaches the port. Audiences are named in
one place (`segmentd.audiencemetrics`), bounded by a setting.

Invariants:
1. Labels have few values: route templates, known methods, statuses, closed vocabularies.
2. Label children are bound once; observing costs a dictionary look-up and an addition.
3. The store is asked for its numbers when somebody scrapes, not when something happens.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from segmentd import __version__, logs
from segmentd.audiencemetrics import AudienceMetrics, KnowsAudiences
from segmentd.requestmetrics import RequestMetrics

_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000)
_BYTES: Final = tuple(4**power for power in range(3, 14))  # 64 B to 64 MiB

_STORE_HELP: Final = {
    "memberships": "Memberships held, disqualified ones included.",
    "identifiers": "Identifiers with at least one membership.",
    "audiences": "Audiences that events or segments have named.",
    "journal_records": "Records that the journal holds (its depth).",
    "journal_bytes": "Bytes that the journal holds.",
    "commits_waiting": "Requests that wait to be committed.",
    "unfolded_records": "Journal records that the index does not hold yet.",
}


class ImportNumbers(Protocol):
    """What imports count; each dictionary has all values of its label."""

    running: int
    waiting: int
    ended: dict[str, int]
    rows: dict[str, int]
    source_failures: dict[str, int]


class Telemetry:
    """All metrics of one process; also the observer of commits and checkpoints."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shown: Collector = self.registry
        """What `/metrics` shows: this, or the numbers of several processes together."""
        self.answered_elsewhere: Callable[[str], Mapping[float, float]] = _none
        """As `answered`, of other processes that serve the same port."""
        self._define_edge()
        self._define_storage()
        ProcessCollector(registry=self.registry)
        lost = "Lines of the log that could not be written: its disk is full, or its reader gone or asleep."
        self.registry.register(_CountCollector("segmentd_log_lines_lost", lost, logs.lines_lost))
        build = Gauge(
            "segmentd_build_info", "Version of segmentd and of Python.", ["version", "python"], registry=self.registry
        )
        build.labels(__version__, platform.python_version()).set(1)

    def _define_edge(self) -> None:
        self._requests = RequestMetrics(_SECONDS)
        self.registry.register(self._requests)
        self._events = Counter(
            "segmentd_events",
            "Events by action (qualify, disqualify, other, unknown) and outcome: accepted; dropped (other types);"
            " invalid (named as such in an answer); refused (valid, but not taken).",
            ["action", "outcome"],
            registry=self.registry,
        )
        self._events_by_labels: dict[tuple[str, str], Counter] = {}
        self._lateness = Histogram(
            "segmentd_loop_lateness_seconds",
            "How late the event loop gave a waiting task its turn, sampled ten times a second.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refusals = Counter(
            "segmentd_http_refusals",
            "Refused requests by route template and reason.",
            ["route", "reason"],
            registry=self.registry,
        )
        self._slow_queries = Counter(
            "segmentd_graphql_slow",
            "Queries that took [log] slow_query_ms_min or longer, whether or not there was room for a line.",
            registry=self.registry,
        )

    def _define_storage(self) -> None:
        here = self.registry
        self._commit_requests = Histogram(
            "segmentd_commit_requests", "Requests in one group commit.", buckets=_COUNTS, registry=here
        )
        self._commit_changes = Histogram(
            "segmentd_commit_changes", "Changes in one group commit.", buckets=_COUNTS, registry=here
        )
        self._commit_bytes = Histogram(
            "segmentd_commit_journal_bytes", "Journal bytes of one group commit.", buckets=_BYTES, registry=here
        )
        self._commit_seconds = Histogram(
            "segmentd_commit_seconds", "Time of one group commit, its fsync included.", buckets=_SECONDS, registry=here
        )
        self._commit_failures = Counter("segmentd_commit_failures", "Group commits that failed.", registry=here)
        self._checkpoint_failures = Counter("segmentd_checkpoint_failures", "Checkpoints that failed.", registry=here)
        self._checkpoint_changes = Histogram(
            "segmentd_checkpoint_changes",
            "Changes folded into the index by one checkpoint.",
            buckets=_COUNTS,
            registry=here,
        )
        self._checkpoint_seconds = Histogram(
            "segmentd_checkpoint_seconds", "Time of one checkpoint.", buckets=_SECONDS, registry=here
        )

    def requested(self, route: str, method: str, status: int, seconds: float, road: str) -> None:
        """One answered request. road: `lane` or `main`."""
        self._requests.observe((route, method, status), seconds, road)

    def slow_query(self) -> None:
        """One that the log of slow queries counts as such."""
        self._slow_queries.inc()

    def refused(self, route: str, reason: str) -> None:
        """One refused request; reason: the refusal's code."""
        self._refusals.labels(route, reason).inc()

    def loop_late(self, seconds: float) -> None:
        """One sample of the event loop's lateness."""
        self._lateness.observe(max(seconds, 0.0))

    def counted_events(self, action: str, outcome: str, count: int) -> None:
        """`count` events of one request."""
        if not count:
            return
        labels = (action, outcome)
        child = self._events_by_labels.get(labels)
        if child is None:
            child = self._events_by_labels[labels] = self._events.labels(action, outcome)
        child.inc(count)

    def committed(self, requests: int, changes: int, journal_bytes: int, seconds: float) -> None:
        """One group commit that is on disk."""
        self._commit_requests.observe(requests)
        self._commit_changes.observe(changes)
        self._commit_bytes.observe(journal_bytes)
        self._commit_seconds.observe(seconds)

    def commit_failed(self) -> None:
        """One group commit that is not on disk."""
        self._commit_failures.inc()

    def checkpointed(self, changes: int, seconds: float) -> None:
        """One finished checkpoint."""
        self._checkpoint_changes.observe(changes)
        self._checkpoint_seconds.observe(seconds)

    def checkpoint_failed(self) -> None:
        """One checkpoint that ended early; it will be tried again."""
        self._checkpoint_failures.inc()

    def watch_plans(self, answered: Callable[[], int]) -> None:
        """Show how many queries plans have answered. answered: the count since the start."""
        described = "Queries that a compiled plan has answered; the others were executed or refused."
        self.registry.register(_CountCollector("segmentd_graphql_planned", described, answered))

    def watch_store(self, stats: Callable[[], msgspec.Struct], segments: Callable[[], int]) -> None:
        """Show the store's numbers. stats: a struct whose fields are integers. segments: how many are defined."""
        self.registry.register(_StoreCollector(stats, segments))

    def events_by_outcome(self) -> dict[str, float]:
        """How many events there were, by outcome."""
        found: dict[str, float] = {}
        for (_, outcome), child in self._events_by_labels.items():
            found[outcome] = found.get(outcome, 0.0) + _counted(child)
        return found

    def answered(self, route: str) -> dict[float, float]:
        """Upper bound in seconds → how many requests to `route` were answered within it; the last bound is infinite."""
        found = self._requests.within(route)
        for bound, count in self.answered_elsewhere(route).items():
            found[bound] = found.get(bound, 0.0) + count
        return found

    def watch_imports(self, counts: Callable[[], ImportNumbers]) -> None:
        """Show what imports have done since the start, and how many there are."""
        self.registry.register(_ImportCollector(counts))

    def watch_audiences(
        self, audiences: KnowsAudiences, of_segments: Callable[[], Iterable[str]], audiences_max: int
    ) -> None:
        """Show as of when audiences are known; of at most so many, those of segments first."""
        self.registry.register(AudienceMetrics(audiences, of_segments, audiences_max))

    def watch_traces(self, counts: Callable[[], Mapping[str, int]], left_out: Callable[[], int]) -> None:
        """Show what became of spans, by outcome, and how many requests were too many to be traced."""
        self.registry.register(_TraceCollector(counts, left_out))

    def render(self, accept: str) -> tuple[bytes, str]:
        """(body, content type): Prometheus text, or OpenMetrics if `accept` asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.shown), content_type


def _none(_route: str) -> Mapping[float, float]:
    return {}


def _counted(counter: Counter) -> float:
    return next(sample.value for metric in counter.collect() for sample in metric.samples if "_total" in sample.name)


class _CountCollector:
    """Asks for a count at each scrape."""

    def __init__(self, name: str, described: str, count: Callable[[], int]) -> None:
        self._name, self._described, self._count = name, described, count

    def collect(self) -> Iterator[CounterMetricFamily]:
        """One counter."""
        yield CounterMetricFamily(self._name, self._described, value=self._count())


class _StoreCollector:
    """Asks the store at each scrape. Implements prometheus-client's collector protocol."""

    def __init__(self, stats: Callable[[], msgspec.Struct], segments: Callable[[], int]) -> None:
        self._stats = stats
        self._segments = segments

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge a number."""
        yield GaugeMetricFamily("segmentd_segments", "Segments that are defined.", value=self._segments())
        for name, value in msgspec.structs.asdict(self._stats()).items():
            if isinstance(value, int | float):
                described = _STORE_HELP.get(name, f"The store's {name.replace('_', ' ')}.")
                yield GaugeMetricFamily(f"segmentd_{name}", described, value=value)


class _TraceCollector:
    """Asks at each scrape."""

    def __init__(self, counts: Callable[[], Mapping[str, int]], left_out: Callable[[], int]) -> None:
        self._counts = counts
        self._left_out = left_out

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Two counters."""
        spans = (
            "Spans by what became of them: exported; failed (the collector did not take them in time); dropped (too"
            " many were waiting)."
        )
        yield _counter("segmentd_trace_spans", spans, "outcome", self._counts())
        left_out = "Requests that were to be traced and were more than [traces] requests_per_second_max."
        yield CounterMetricFamily("segmentd_trace_requests_left_out", left_out, value=self._left_out())


class _ImportCollector:
    """Asks the imports at each scrape."""

    def __init__(self, counts: Callable[[], ImportNumbers]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Gauges for what is there now, counters for what was done since the start."""
        counts = self._counts()
        yield GaugeMetricFamily("segmentd_imports_running", "Imports that are being carried out.", value=counts.running)
        waiting = "Imports that wait for their turn."
        yield GaugeMetricFamily("segmentd_imports_waiting", waiting, value=counts.waiting)
        yield _counter("segmentd_imports", "Imports that have ended, by state.", "state", counts.ended)
        rows = (
            "Rows of imports that have ended, dry runs left out: qualified and unchanged ones of the list, rejected"
            " ones, and members that were disqualified."
        )
        yield _counter("segmentd_import_rows", rows, "outcome", counts.rows)
        failures = (
            "Files of the watched folder or the bucket that could not be read, moved or looked at, and times when the"
            " place itself could not be used; each counts once until it changes."
        )
        yield _counter("segmentd_import_source_failures", failures, "source", counts.source_failures)


def _counter(name: str, described: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, described, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
