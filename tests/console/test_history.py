"""What the charts show: rates, quantiles and sizes are right, and bounded."""

from collections.abc import Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.history import Counts, History, point_between, quantile
from segmentd.settings import ConsoleSettings

BOUNDS = (0.001, 0.01, 0.1, float("inf"))
NOTHING = Counts({}, (), ())


def counts(accepted: float, queries: tuple[float, ...] = (0, 0, 0, 0)) -> Counts:
    return Counts({"accepted": accepted, "invalid": 1}, queries, BOUNDS)


def test_a_rate_is_what_came_divided_by_the_time_that_passed() -> None:
    point = point_between(counts(100), counts(150), 1_000.0, 2.5)
    assert point.events_per_second == {"accepted": 20, "dropped": 0, "invalid": 0, "refused": 0}
    assert point.queries_per_second == 0
    assert point.query_seconds == (None, None, None)


def test_latency_is_that_of_the_queries_in_between() -> None:
    point = point_between(counts(0, (1_000, 1_000, 1_000, 1_000)), counts(0, (1_000, 1_100, 1_100, 1_100)), 0, 1)
    assert point.queries_per_second == 100
    assert point.query_seconds == (0.0055, 0.00955, 0.00991)


def test_the_first_queries_count_from_nothing() -> None:
    assert point_between(NOTHING, counts(0, (10, 10, 10, 10)), 0, 2).queries_per_second == 5


@given(st.lists(st.integers(0, 1_000), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_that_it_falls_into(per_bucket: list[int], share: float) -> None:
    cumulative = [float(sum(per_bucket[: at + 1])) for at in range(4)]
    found = quantile(share, BOUNDS, cumulative)
    if not cumulative[-1]:
        assert found is None
        return
    assert found is not None
    bucket = next(at for at, count in enumerate(cumulative) if count >= share * cumulative[-1])
    below = BOUNDS[bucket - 1] if bucket else 0.0
    assert below <= found <= min(BOUNDS[bucket], BOUNDS[-2])


class Sampled:
    """A history whose segments and clock the test moves."""

    def __init__(self, **settings: float) -> None:
        self.now: Iterator[int] = iter(range(1_000_000))
        self.segments: dict[str, int] = {}
        self.counted = counts(0)
        self.history = History(
            ConsoleSettings(**settings),  # type: ignore[arg-type]
            counts=lambda: self.counted,
            sizes=self.sizes,
            clock=lambda: float(next(self.now)),
        )
        self.refusal: Exception | None = None

    async def sizes(self) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        return self.segments


async def no_sizes() -> dict[str, int]:
    return {}


async def test_sizes_are_kept_by_segment_and_belong_to_the_last_times() -> None:
    sampled = Sampled(size_points_max=3)
    for size in range(5):
        sampled.segments = {"old": size} | ({"new": 10 * size} if size >= 3 else {})
        await sampled.history.add_sizes()
    assert sampled.history.sizes("old") == [(2, 2), (3, 3), (4, 4)]
    assert sampled.history.sizes("new") == [(3, 30), (4, 40)]
    assert sampled.history.sizes("never") == []


async def test_a_store_that_cannot_say_leaves_a_gap() -> None:
    sampled = Sampled()
    for refusal in (None, StoreUnavailable("Away.", 1), None):
        sampled.segments = {"a": 7}
        sampled.refusal = refusal
        await sampled.history.add_sizes()
    assert sampled.history.sizes("a") == [(0, 7), (1, 7)]


async def test_a_segment_that_is_gone_leaves_nothing_and_comes_back_empty() -> None:
    sampled = Sampled()
    for segments in ({"a": 1}, {}, {"a": 2}):
        sampled.segments = segments
        await sampled.history.add_sizes()
    assert sampled.history.sizes("a") == [(2, 2)]


async def test_samples_are_taken_on_time_and_the_oldest_go(autojump_clock: MockClock) -> None:
    sampled = Sampled(traffic_seconds=2, traffic_points_max=5, size_seconds=10, size_points_max=4)
    sampled.segments = {"a": 7}
    with trio.move_on_after(61):
        await sampled.history.run()
    points = sampled.history.traffic()
    assert len(points) == 5
    assert len(sampled.history.sizes("a")) == 4
    assert sampled.history.traffic(points[2].at) == points[3:]
    assert [size for _, size in sampled.history.sizes("a")] == [7] * 4


@pytest.mark.parametrize("back", [0, -5])
async def test_a_clock_that_does_not_move_on_gives_no_point(autojump_clock: MockClock, back: int) -> None:
    times = iter([100.0, 100.0 + back, 110.0])
    history = History(ConsoleSettings(traffic_seconds=1), lambda: counts(0), no_sizes, clock=lambda: next(times, 111.0))
    with trio.move_on_after(2.5):
        await history._sample_traffic()
    assert [point.at for point in history.traffic()] == [110.0]
