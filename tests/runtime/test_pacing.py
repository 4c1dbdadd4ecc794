"""Commits slow down to the rate of the checkpointer, and only when the journal is behind."""

from hypothesis import given
from hypothesis import strategies as st

from segmentd.runtime.pacing import PAUSE_SECONDS_MAX, Pacing


def test_a_short_journal_is_not_paced() -> None:
    pacing = Pacing(1_000)
    pacing.folded(100_000, 1.0)
    assert pacing.pause_seconds(10_000, 1_000) == 0.0


def test_without_a_measured_fold_nothing_is_paced() -> None:
    assert Pacing(1_000).pause_seconds(10_000, 1_000_000) == 0.0


def test_the_pause_is_the_time_of_folding_what_was_committed_and_grows_with_the_journal() -> None:
    pacing = Pacing(1_000_000)
    pacing.folded(100_000, 1.0)
    assert pacing.pause_seconds(5_000, 1_000_001) >= 0.05
    assert pacing.pause_seconds(5_000, 2_000_000) == 2 * 0.05
    assert pacing.pause_seconds(5_000, 10**12) == PAUSE_SECONDS_MAX


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.001, 100)), min_size=1))
def test_the_rate_stays_within_what_was_measured(folds: list[tuple[int, float]]) -> None:
    pacing = Pacing(1)
    for changes, seconds in folds:
        pacing.folded(changes, seconds)
    rates = [changes / seconds for changes, seconds in folds]
    pause = pacing.pause_seconds(1, 2)
    # 2 bytes of 1 allowed: twice the time of folding one change.
    assert pause <= min(PAUSE_SECONDS_MAX, 2 / min(rates) * 1.000001)
    assert pause >= min(PAUSE_SECONDS_MAX, 2 / max(rates) * 0.999999)
