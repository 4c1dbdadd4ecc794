"""Metrics of several processes as one: what the owner shows at `/metrics` for itself and its followers.

Owns the adding up, and the metrics that only exist beside followers. Never asks a process for anything.

Invariants:
1. Counters and histograms are added up; what a process had counted when it was last heard stays counted when it ends.
2. Numbers whose sum says nothing (gauges, and how late each loop was) are shown for each process, with the label
   `process`.
3. Without followers `/metrics` is what one process alone shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OWNER: Final = "owner"
ALL: Final = ""
"""In the place of a process's name: a number of all together."""
_LABEL: Final = "process"
_ADDED_UP: Final = frozenset({"counter", "histogram"})
# How late a loop is says something about that loop alone.
_OF_EACH: Final = frozenset({"segmentd_loop_lateness_seconds"})

_TIMES: Final = "segmentd_http_request_seconds"

Labels = tuple[tuple[str, str], ...]
Numbers = dict[tuple[str, Labels], float]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number. name: with its suffix, as Prometheus shows it."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric with its numbers. kind: counter, gauge, histogram."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Everything that this process has counted, to be sent to the owner."""
    return [
        Family(metric.name, metric.type, metric.documentation, list(_samples(metric))) for metric in registry.collect()
    ]


def failed_hand_overs(registry: CollectorRegistry) -> Counter:
    """Each process counts those that it could not send, and those that did not arrive there."""
    return Counter(
        "segmentd_hand_overs_failed",
        "Connections that ended because they could not be handed to another process, or were lost on the way.",
        registry=registry,
    )


def _samples(metric: Metric) -> Iterator[Sample]:
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            yield Sample(sample.name, dict(sample.labels), float(sample.value))


class ProcessMetrics(Collector):
    """What followers have counted. As a registry it shows their numbers and the owner's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """registry: the owner's."""
        self._registry = registry
        self._heard: dict[str, list[Family]] = {}
        self._ended: dict[str, Family] = {}
        self._ended_numbers: dict[str, Numbers] = {}
        self.restarts = Counter(
            "segmentd_follower_restarts",
            "Followers that ended by themselves and were started again.",
            registry=registry,
        )
        self.lost = Counter(
            "segmentd_follower_connections_lost",
            "Connections that ended because their follower did.",
            registry=registry,
        )
        self.handed_over = Counter(
            "segmentd_connections_handed_over",
            "Connections handed to another process, by where to.",
            ["to"],
            registry=registry,
        )
        for process in (OWNER, "follower"):
            self.handed_over.labels(process)  # so that it is shown before the first one
        self.failed = failed_hand_overs(registry)

    def watch(self, gauges: Callable[[], Mapping[str, Mapping[str, float]]]) -> None:
        """gauges: asked at each scrape; name of a number → process → value, or `ALL` → value."""
        self._registry.register(_Gauges(gauges))

    def heard(self, process: str, families: list[Family]) -> None:
        """A follower has told what it counted since it began."""
        self._heard[process] = families

    def ended(self, process: str) -> None:
        """A follower is gone: what it had counted stays counted."""
        for family in self._heard.pop(process, []):
            if family.kind in _ADDED_UP and family.name not in _OF_EACH:
                self._ended[family.name] = family
                _add(self._ended_numbers.setdefault(family.name, {}), family.samples)

    def answered(self, route: str) -> dict[float, float]:
        """Upper bound in seconds → how many requests followers have answered within it, those that ended included."""
        numbers: Numbers = dict(self._ended_numbers.get(_TIMES, {}))
        for _, family in self._families(_TIMES):
            _add(numbers, family.samples)
        found: dict[float, float] = {}
        for (name, labels), count in numbers.items():
            described = dict(labels)
            if name == f"{_TIMES}_bucket" and described["route"] == route:
                bound = float(described["le"])
                found[bound] = found.get(bound, 0.0) + count
        return found

    def collect(self) -> Iterator[Metric]:
        """As a registry's."""
        own = {metric.name: metric for metric in self._registry.collect()}
        others: dict[str, Family] = dict(self._ended)
        for families in self._heard.values():
            others.update({family.name: family for family in families})
        for name, metric in own.items():
            yield self._merged(name, metric.type, metric.documentation, metric)
        for name, family in others.items():
            if name not in own:
                yield self._merged(name, family.kind, family.help, None)

    def _merged(self, name: str, kind: str, documentation: str, own: Metric | None) -> Metric:
        merged = Metric(name, documentation, kind)
        if kind in _ADDED_UP and name not in _OF_EACH:
            self._add_up(merged, own)
        else:
            self._put_beside(merged, own)
        return merged

    def _add_up(self, merged: Metric, own: Metric | None) -> None:
        numbers: Numbers = {}
        if own is not None:
            _add(numbers, _samples(own))
        for (name, labels), value in self._ended_numbers.get(merged.name, {}).items():
            numbers[name, labels] = numbers.get((name, labels), 0.0) + value
        for families in self._heard.values():
            for family in families:
                if family.name == merged.name:
                    _add(numbers, family.samples)
        for (name, labels), value in numbers.items():
            merged.add_sample(name, dict(labels), value)

    def _put_beside(self, merged: Metric, own: Metric | None) -> None:
        beside = {process: family.samples for process, family in self._families(merged.name)}
        for sample in [] if own is None else _samples(own):
            # What followers never tell is the owner's alone, and needs no label.
            labelled = beside and _LABEL not in sample.labels
            merged.add_sample(
                sample.name, {**sample.labels, _LABEL: OWNER} if labelled else sample.labels, sample.value
            )
        for process, samples in beside.items():
            for sample in samples:
                merged.add_sample(sample.name, {**sample.labels, _LABEL: process}, sample.value)

    def _families(self, name: str) -> Iterator[tuple[str, Family]]:
        for process, families in self._heard.items():
            yield from ((process, family) for family in families if family.name == name)


def _add(numbers: Numbers, samples: Iterator[Sample] | list[Sample]) -> None:
    for sample in samples:
        key = sample.name, tuple(sample.labels.items())
        numbers[key] = numbers.get(key, 0.0) + sample.value


class _Gauges(Collector):
    """Asks for numbers of followers at each scrape. Implements prometheus-client's collector protocol."""

    def __init__(self, gauges: Callable[[], Mapping[str, Mapping[str, float]]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge a number."""
        for name, values in self._gauges().items():
            one = list(values) == [ALL]
            family = GaugeMetricFamily(f"segmentd_{name}", _GAUGES_HELP[name], labels=[] if one else [_LABEL])
            for process, value in values.items():
                family.add_metric([] if one else [process], value)
            yield family


_GAUGES_HELP: Final = {
    "connections": "Open connections of each process.",
    "followers_wanted": "Followers that are to run.",
    "followers_ready": "Followers that answer now.",
    "readers_long": "Readers of the store that have held the same snapshot for longer than they should.",
}


class StatsCollector(Collector):
    """Shows a follower's view of the store. Implements prometheus-client's collector protocol."""

    def __init__(self, stats: Callable[[], msgspec.Struct], counters: frozenset[str]) -> None:
        """stats: a struct of integers. counters: the names of those that only rise."""
        self._stats = stats
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """One metric a number."""
        for name, value in msgspec.structs.asdict(self._stats()).items():
            described = f"The follower's {name.replace('_', ' ')}."
            if name in self._counters:
                yield CounterMetricFamily(f"segmentd_following_{name}", described, value=value)
            else:
                yield GaugeMetricFamily(f"segmentd_following_{name}", described, value=value)
