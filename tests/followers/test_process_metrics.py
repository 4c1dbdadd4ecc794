"""Metrics of several processes shown as one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from segmentd.http.traffic import QUERY_ROUTE, counts_of
from segmentd.processmetrics import ALL, ProcessMetrics, families_of
from segmentd.telemetry import Telemetry


class Counted:
    """The registry of one process, with one metric of each kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests.", ["route"], registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", buckets=(1, 2), registry=self.registry)
        self.late = Histogram("segmentd_loop_lateness_seconds", "Lateness.", buckets=(1,), registry=self.registry)
        self.memory = Gauge("memory", "Memory.", registry=self.registry)


def shown(registry: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(registry).decode()  # type: ignore[arg-type]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_counters_and_histograms_are_added_up_over_all_processes() -> None:
    owner, follower = Counted(), Counted()
    metrics = ProcessMetrics(owner.registry)
    owner.requests.labels("/a").inc(3)
    follower.requests.labels("/a").inc(4)
    follower.requests.labels("/b").inc(1)
    owner.seconds.observe(0.5)
    follower.seconds.observe(1.5)
    metrics.heard("follower-0", families_of(follower.registry))
    seen = shown(metrics)
    assert seen["requests_total", (("route", "/a"),)] == 7
    assert seen["requests_total", (("route", "/b"),)] == 1
    assert seen["seconds_bucket", (("le", "1.0"),)] == 1
    assert seen["seconds_bucket", (("le", "2.0"),)] == 2
    assert seen["seconds_count", ()] == 2
    assert seen["seconds_sum", ()] == 2


def test_what_a_sum_says_nothing_about_is_shown_for_each_process() -> None:
    owner, follower = Counted(), Counted()
    metrics = ProcessMetrics(owner.registry)
    owner.memory.set(10)
    follower.memory.set(20)
    follower.late.observe(0.5)
    metrics.heard("follower-0", families_of(follower.registry))
    seen = shown(metrics)
    assert seen["memory", (("process", "owner"),)] == 10
    assert seen["memory", (("process", "follower-0"),)] == 20
    assert seen["segmentd_loop_lateness_seconds_count", (("process", "owner"),)] == 0
    assert seen["segmentd_loop_lateness_seconds_count", (("process", "follower-0"),)] == 1


def test_what_a_follower_had_counted_stays_counted_when_it_ends() -> None:
    owner = Counted()
    metrics = ProcessMetrics(owner.registry)
    for count in (2, 5):
        follower = Counted()
        follower.requests.labels("/a").inc(count)
        follower.memory.set(20)
        metrics.heard("follower-0", families_of(follower.registry))
        follower.requests.labels("/a").inc(1)
        metrics.heard("follower-0", families_of(follower.registry))
        metrics.ended("follower-0")
    seen = shown(metrics)
    assert seen["requests_total", (("route", "/a"),)] == 2 + 1 + 5 + 1
    assert ("memory", (("process", "follower-0"),)) not in seen


def test_without_followers_everything_is_shown_as_one_process_shows_it() -> None:
    owner, alone = Counted(), Counted()
    metrics = ProcessMetrics(owner.registry)
    ProcessMetrics(alone.registry)
    for counted in (owner, alone):
        counted.requests.labels("/a").inc(3)
        counted.memory.set(10)
    assert shown(metrics) == shown(alone.registry)


def test_the_sums_are_valid_openmetrics() -> None:
    owner, follower = Counted(), Counted()
    metrics = ProcessMetrics(owner.registry)
    metrics.watch(lambda: {"connections": {"owner": 1.0, "follower-0": 2.0}, "followers_ready": {ALL: 1.0}})
    follower.requests.labels("/a").inc(3)
    follower.seconds.observe(0.5)
    metrics.heard("follower-0", families_of(follower.registry))
    text = generate_openmetrics(metrics).decode()  # type: ignore[no-untyped-call]
    families = {family.name: family for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    assert {sample.labels["process"] for sample in families["segmentd_connections"].samples} == {"owner", "follower-0"}
    assert families["segmentd_followers_ready"].samples[0].labels == {}
    assert families["requests"].samples[0].value == 3


def test_the_charts_of_traffic_count_what_followers_have_answered_and_lose_nothing_when_one_ends() -> None:
    owner, follower = Telemetry(), Telemetry()
    metrics = ProcessMetrics(owner.registry)
    owner.answered_elsewhere = metrics.answered
    for telemetry, seconds in ((owner, 0.002), (follower, 0.002), (follower, 100.0)):
        telemetry.requested(QUERY_ROUTE, "POST", 200, seconds, "lane")
    follower.requested("/v3/events", "POST", 202, 0.002, "lane")
    metrics.heard("follower-0", families_of(follower.registry))
    counted = counts_of(owner)
    assert counted.queries[-1] == 3
    assert counted.queries[counted.query_bounds_seconds.index(0.0025)] == 2
    assert counted.queries[0] == 0
    metrics.ended("follower-0")
    assert counts_of(owner) == counted
