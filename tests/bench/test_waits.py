"""How long a query waits that comes at a random moment is arithmetic over gaps."""

import random

import pytest

from bench.waits import percentile


def test_in_equal_gaps_all_waits_up_to_the_whole_gap_are_alike() -> None:
    assert percentile([2.0] * 7, 50) == pytest.approx(1.0)
    assert percentile([2.0] * 7, 99) == pytest.approx(1.98)


def test_a_long_gap_is_met_more_often_than_a_short_one() -> None:
    # Of 10 ms, 9 are in the long gap, so half of all queries come there with 4 ms or more to go.
    assert percentile([9.0, 1.0], 50) == pytest.approx(4.0)


def test_it_is_what_random_moments_meet() -> None:
    chance = random.Random(7)
    gaps = [chance.expovariate(1.0) for _ in range(200)]
    waits = sorted(gap * chance.random() for gap in chance.choices(gaps, weights=gaps, k=50_000))
    for per_cent in (50, 90, 99):
        assert percentile(gaps, per_cent) == pytest.approx(waits[int(len(waits) * per_cent / 100)], rel=0.1)


def test_nobody_waits_where_nothing_was_counted() -> None:
    assert percentile([], 99) == 0.0
