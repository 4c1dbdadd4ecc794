"""Comparing two stores finds every difference, and in a merge only those that lose something."""

import pytest

from segmentd.domain.segments import SegmentRecord
from segmentd.migration.contents import (
    DIFFERENCES_LISTED_MAX,
    Audience,
    Contents,
    Counts,
    Differences,
    compare_contents,
    compare_counts,
    compare_row,
)

KEY = b"\0u-1"


def contents(**changed: object) -> Contents:
    parts: dict[str, object] = {
        "kinds": ["fs_user_id"],
        "salt": b"s" * 16,
        "audiences": {"red": Audience(True, 0, 0, 20, 7)},
        "forgotten": {b"m" * 20: 5},
        "segments": {"reds": SegmentRecord("reds", 3, None, 9)},
        "keys": {},
        "jobs": [],
        "requests": [],
        "unfinished": [],
    }
    return Contents(**(parts | changed))  # type: ignore[arg-type]


def differences_of(source: Contents, target: Contents, *, exact: bool = True) -> list[str]:
    found = Differences()
    compare_contents(source, target, found, exact=exact)
    return found.listed


def test_what_is_the_same_has_no_differences() -> None:
    assert differences_of(contents(), contents()) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"audiences": {}}, "audience red"),
        ({"audiences": {"red": Audience(True, 0, 0, 22, 7)}}, "audience red"),
        ({"forgotten": {b"m" * 20: 6}}, "forgotten 6d6d"),
        ({"segments": {"reds": SegmentRecord("reds", 2, None, 9)}}, "segment reds"),
    ],
)
def test_whatever_the_target_lacks_or_says_differently_is_named(changed: dict[str, object], named: str) -> None:
    (difference,) = differences_of(contents(), contents(**changed))
    assert difference.startswith(named)


@pytest.mark.parametrize(
    "changed",
    [
        {"audiences": {"red": Audience(True, 3, 0, 22, 8)}},
        {"forgotten": {b"m" * 20: 6}},
        {"segments": {"reds": SegmentRecord("reds", 4, None, 9)}},
    ],
)
def test_what_is_later_in_the_target_is_no_loss_in_a_merge(changed: dict[str, object]) -> None:
    assert differences_of(contents(), contents(**changed), exact=False) == []
    assert len(differences_of(contents(**changed), contents(), exact=False)) == 1


def test_what_only_the_target_has_is_no_difference_of_contents() -> None:
    assert differences_of(contents(audiences={}, segments={}), contents()) == []


def test_counts_name_each_audience_that_differs() -> None:
    found = Differences()
    compare_counts(Counts(2, 4, {"red": 2, "blue": 1}), Counts(2, 3, {"red": 2, "green": 1}), found)
    assert found.listed == [
        "memberships: 4 in the source, 3 in the target",
        "audience blue: 1 members in the source, 0 in the target",
        "audience green: 0 members in the source, 1 in the target",
    ]


@pytest.mark.parametrize(
    ("source", "target", "exact", "total"),
    [
        ({"red": 10}, {"red": 10}, True, 0),
        ({"red": 10}, {"red": 12}, True, 1),
        ({"red": 10}, {"red": 12}, False, 0),
        ({"red": 10}, {"red": 8}, False, 1),
        ({"red": 10}, {}, False, 1),
        ({}, {"red": 10}, True, 1),
        ({}, {"red": 10}, False, 0),
    ],
)
def test_a_decision_may_be_later_in_a_merge_and_never_earlier(
    source: dict[str, int], target: dict[str, int], exact: bool, total: int
) -> None:
    found = Differences()
    compare_row(KEY, source, target, found, exact=exact)
    assert found.total == total


def test_only_the_first_differences_are_kept_and_all_are_counted() -> None:
    found = Differences()
    for number in range(DIFFERENCES_LISTED_MAX + 5):
        found.add(str(number))
    assert len(found.listed) == DIFFERENCES_LISTED_MAX
    assert found.total == DIFFERENCES_LISTED_MAX + 5
