"""Metrics of a node that serves a cluster. They exist only where the store is in one.

Counters are those of the actors themselves and are asked for at each scrape; only reads are told of as they end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Server(Protocol):
    """One server of the cluster."""

    @property
    def role(self) -> str: ...
    @property
    def answers(self) -> bool: ...


class Report(Protocol):
    """See `segmentd.runtime.clusterhealth.ClusterHealth`."""

    @property
    def servers(self) -> Sequence[Server]: ...
    @property
    def partitions_away(self) -> int: ...
    @property
    def registry_age_seconds(self) -> float: ...
    @property
    def registry_failures(self) -> int: ...
    @property
    def outbox_bytes(self) -> int: ...
    @property
    def recovered_changes(self) -> int: ...
    @property
    def reads_running(self) -> int: ...
    @property
    def retries(self) -> Mapping[str, int]: ...


class ClusterMetrics:
    """Implements prometheus-client's collector protocol; `read` is told of each read."""

    def __init__(self, registry: CollectorRegistry, report: Callable[[], Report]) -> None:
        self._report = report
        histogram = Histogram(
            "segmentd_cluster_read_seconds",
            "Time of one read from the cluster, of all partitions that it needs, repetitions included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.read: Callable[[float], None] = histogram.observe
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """What there is now, and what was counted since the start."""
        report = self._report()
        servers = GaugeMetricFamily(
            "segmentd_cluster_servers",
            "Servers of the cluster, by role and whether they answer.",
            labels=["role", "answers"],
        )
        for role in ("primary", "replica"):
            for answers in (True, False):
                count = sum(each.role == role and each.answers == answers for each in report.servers)
                servers.add_metric([role, "yes" if answers else "no"], count)
        yield servers
        for name, described, value in (
            ("partitions_away", "Partitions without an owner that answers.", report.partitions_away),
            ("registry_age_seconds", "Since the registry was read last.", report.registry_age_seconds),
            ("outbox_bytes", "Bytes of what this node keeps of what it sent lately.", report.outbox_bytes),
            ("reads_running", "Reads from the cluster that are being done.", report.reads_running),
        ):
            yield GaugeMetricFamily(f"segmentd_cluster_{name}", described, value=value)
        failures = "Times when the registry could not be read."
        yield CounterMetricFamily("segmentd_cluster_registry_failures", failures, value=report.registry_failures)
        recovered = "Changes that this node has given back to new owners of partitions, and after its own start."
        yield CounterMetricFamily("segmentd_cluster_recovered_changes", recovered, value=report.recovered_changes)
        retries = CounterMetricFamily(
            "segmentd_cluster_retries",
            "Jobs that were sent again or given up, by reason: link (no connection or answer), moved (the slot is"
            " elsewhere), asked (it is moving), stale (the registry has changed), functions (not loaded yet), replicas"
            " (too few have acknowledged), refused (anything else that a server says).",
            labels=["reason"],
        )
        for reason, count in report.retries.items():
            retries.add_metric([reason], count)
        yield retries
