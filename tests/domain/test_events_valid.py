"""Good uploads: what they mean, and what is ignored in them."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.events import Change, parse_events
from segmentd.domain.events_examined import ts_ms_from
from tests.domain.strategies import FUTURE_SECONDS_MAX, NOW_MS, RULES, SCHEMA, changes, encoded, event_of, valid_event

USER = SCHEMA.key(SCHEMA.kinds["fs_user_id"], "u-1")


def changes_of(*events: Any) -> list[Change]:
    return parse_events(encoded(list(events)), ndjson=False, rules=RULES, now_ms=NOW_MS).changes


def v_of_ts(**ts: Any) -> int:
    [(_, _, v)] = changes_of(valid_event(data={"audience_id": "a", **ts}))
    return v


@given(st.lists(changes, min_size=1, max_size=20))
def test_an_event_is_read_as_the_change_that_it_was_written_for(told: list[Change]) -> None:
    parsed = parse_events(encoded([event_of(change) for change in told]), ndjson=False, rules=RULES, now_ms=NOW_MS)
    assert parsed.changes == told
    assert parsed.disqualify == sum(v & 1 for _, _, v in told)
    assert (parsed.qualify + parsed.disqualify, parsed.dropped) == (len(told), 0)


@given(st.lists(changes, min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]))
def test_array_lines_and_single_events_mean_the_same(told: list[Change], separator: bytes) -> None:
    events = [event_of(change) for change in told]
    lines = separator.join(map(encoded, events))
    assert parse_events(lines, ndjson=True, rules=RULES, now_ms=NOW_MS).changes == told
    singles = [parse_events(encoded(event), ndjson=False, rules=RULES, now_ms=NOW_MS).changes for event in events]
    assert [change for single in singles for change in single] == told


@given(st.integers(0, NOW_MS + FUTURE_SECONDS_MAX * 1000))
def test_every_millisecond_written_in_decimal_seconds_is_read_exactly(ts_ms: int) -> None:
    body = encoded(valid_event(data={"audience_id": "a", "ts": 7_777}))
    written = f"{ts_ms // 1000}.{ts_ms % 1000:03}".encode()
    parsed = parse_events(body.replace(b"7777", written), ndjson=False, rules=RULES, now_ms=NOW_MS)
    assert parsed.changes == [(USER, "a", ts_ms * 2)]


@given(st.integers(-(10**15), 10**15), st.sampled_from([-math.inf, 0.0, math.inf]) | st.floats(-1e12, 1e12))
def test_a_number_has_milliseconds_exactly_if_three_decimals_are_enough_to_write_it(ts_ms: int, towards: float) -> None:
    for ts in (ts_ms / 1000, math.nextafter(ts_ms / 1000, towards), towards):
        if abs(ts) <= 1e12:
            written = Decimal(repr(ts))
            assert ts_ms_from(ts) == (int(written * 1000) if written == round(written, 3) else None)


@pytest.mark.parametrize("ts", [{}, {"ts": None}])
def test_without_a_time_it_is_the_time_of_receipt(ts: dict[str, None]) -> None:
    assert v_of_ts(**ts) == NOW_MS * 2


@pytest.mark.parametrize(
    ("ts", "ts_ms"),
    [
        (0, 0),
        (-0.0, 0),
        (0.001, 1),
        (1.5e3, 1_500_000),
        (1_748_851_070, 1_748_851_070_000),
        (NOW_MS // 1000 + FUTURE_SECONDS_MAX, NOW_MS + FUTURE_SECONDS_MAX * 1000),
    ],
)
def test_seconds_become_milliseconds(ts: float, ts_ms: int) -> None:
    assert v_of_ts(ts=ts) == ts_ms * 2


def test_disqualify_is_one_more_than_qualify_at_the_same_time() -> None:
    data = {"audience_id": "a", "ts": 1}
    qualify, disqualify = changes_of(valid_event(data=data), valid_event(data=data, action="disqualify"))
    assert (qualify[2], disqualify[2]) == (2_000, 2_001)


def test_low_confidence_identifiers_beside_a_high_one_are_ignored() -> None:
    [change] = changes_of(valid_event(identifiers={"vuid": "", "fs_user_id": "u-1"}))
    assert change[0] == USER


def test_other_types_are_counted_and_dropped_whatever_else_they_hold() -> None:
    others: list[Any] = [
        {"type": "fullstack", "action": "identified", "identifiers": {"unknown": 1}, "data": {"ts": "x"}},
        {"type": "fullstack"},
        {"type": "x", "data": [], "identifiers": None},
    ]
    parsed = parse_events(encoded([*others, valid_event()]), ndjson=False, rules=RULES, now_ms=NOW_MS)
    assert (parsed.dropped, parsed.qualify, parsed.disqualify) == (3, 1, 0)


def test_unknown_fields_are_ignored() -> None:
    data = {"audience_id": "a", "ts": 1, "idempotence_id": "i", "data_source": "s", "data_source_type": 7, "n": [{}]}
    assert changes_of(valid_event(data=data, vendor={"x": [1.5]})) == [(USER, "a", 2_000)]


def test_500_events_are_allowed() -> None:
    assert len(changes_of(*[valid_event()] * 500)) == 500


def test_an_audience_id_of_128_characters_of_every_allowed_kind_is_allowed() -> None:
    audience_id = "aZ0_.:@+~-" + "x" * 118
    assert changes_of(valid_event(data={"audience_id": audience_id, "ts": 1})) == [(USER, audience_id, 2_000)]
