"""Freshness: the largest ts of each audience, whatever the order, the batches and the repetitions."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.freshness import Freshness
from segmentd.domain.membership import AUDIENCE_NUMBER_MAX, TS_MS_MAX, v_of, word_of

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 5) | st.integers(0, 2_000),
        st.integers(1, 3) | st.integers(1, TS_MS_MAX),
        st.booleans(),
    ),
    max_size=30,
)


def latest(events: list[tuple[int, int, bool]]) -> dict[int, int]:
    return {audience: max(ts for of, ts, _ in events if of == audience) for audience, _, _ in events}


@given(EVENTS, st.integers(1, 10), st.randoms(use_true_random=False))
def test_it_is_the_largest_ts_of_each_audience_in_any_order_and_any_batches(
    events: list[tuple[int, int, bool]], size: int, chance: Random
) -> None:
    changes = [(b"k", word_of(audience, v_of(ts_ms, qualified))) for audience, ts_ms, qualified in events]
    shuffled = chance.sample(changes, len(changes)) + changes[: len(changes) // 2]
    freshness = Freshness()
    for start in range(0, len(shuffled), size):
        freshness.note(shuffled[start : start + size])
    expected = latest(events)
    assert {audience: freshness.event_ms(audience) for audience in range(2_001)} == {
        audience: expected.get(audience, 0) for audience in range(2_001)
    }


@given(EVENTS)
def test_what_is_stored_and_taken_over_is_the_same(events: list[tuple[int, int, bool]]) -> None:
    freshness = Freshness()
    for audience, ts_ms in latest(events).items():
        freshness.load(audience, ts_ms)
    assert {audience: freshness.event_ms(audience) for audience, _, _ in events} == latest(events)


def test_an_audience_that_was_never_heard_of_has_none_and_the_last_number_has_room() -> None:
    freshness = Freshness()
    freshness.load(3, 0)
    assert (freshness.event_ms(3), freshness.event_ms(AUDIENCE_NUMBER_MAX)) == (0, 0)
    freshness.load(AUDIENCE_NUMBER_MAX, 7)
    assert (freshness.event_ms(AUDIENCE_NUMBER_MAX), freshness.event_ms(AUDIENCE_NUMBER_MAX - 1)) == (7, 0)
