"""Two roads read an upload, one fast and one thorough: they never disagree, and nothing but a refusal leaves them.

The one exception that is known and meant: an integer of more than 4300 digits in a field that nobody reads is passed
over by the fast road and refused by the thorough one.
"""

import json
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segmentd.domain import events as roads
from segmentd.domain.events import ParsedEvents, parse_events
from segmentd.domain.refusals import InvalidEvents, MalformedBody, Refusal
from tests.domain.strategies import NOW_MS, RULES, encoded, events, json_values, valid_event

IN_DOUBT = "in doubt"
MALFORMED = "malformed"
Outcome = ParsedEvents | str | list[int]


def events_named(refused: InvalidEvents) -> list[int]:
    """The numbers of the events that a refusal names."""
    assert refused.total >= 1
    assert len(refused.invalids) == min(refused.total, RULES.invalids_listed_max)
    assert all(problem.reason and problem.message for problem in refused.invalids)
    return [problem.event for problem in refused.invalids]


def short_road(body: bytes, ndjson: bool) -> Outcome:
    try:
        return roads._parse_typed(body, ndjson, RULES, NOW_MS)
    except (msgspec.ValidationError, roads._DoubtError):
        return IN_DOUBT
    except (msgspec.DecodeError, RecursionError, MalformedBody):
        return MALFORMED


def examined_road(body: bytes, ndjson: bool) -> Outcome:
    try:
        return roads._parse_examined(body, ndjson, RULES, NOW_MS)
    except MalformedBody:
        return MALFORMED
    except InvalidEvents as refused:
        return events_named(refused)


def whole_way(body: bytes, ndjson: bool) -> Outcome:
    try:
        return parse_events(body, ndjson=ndjson, rules=RULES, now_ms=NOW_MS)
    except InvalidEvents as refused:
        return events_named(refused)
    except MalformedBody:
        return MALFORMED


def assert_agreed(body: bytes, ndjson: bool) -> None:
    short, examined, whole = short_road(body, ndjson), examined_road(body, ndjson), whole_way(body, ndjson)
    assert whole == examined
    assert short in (IN_DOUBT, examined)


def is_sound(event: Any) -> bool:
    return isinstance(examined_road(encoded([event]), False), ParsedEvents)


@settings(max_examples=500)
@given(st.lists(events, max_size=4), st.booleans(), st.booleans())
@example([valid_event(x=1.5, data={"audience_id": "a", "ts": None, "y": None})], False, False)
def test_the_roads_agree_about_events_from_sound_to_broken(listed: list[Any], ndjson: bool, ascii_only: bool) -> None:
    texts = [json.dumps(event, ensure_ascii=ascii_only).encode() for event in listed]
    assert_agreed(b"\n".join(texts) if ndjson else b"[" + b",".join(texts) + b"]", ndjson)


@given(events)
def test_the_roads_agree_about_a_single_event(event: Any) -> None:
    assert_agreed(encoded(event), False)


@given(json_values, st.sampled_from(["type", "action", "identifiers", "data", "x"]))
def test_the_roads_agree_about_a_sound_event_with_anything_in_one_place(value: Any, field: str) -> None:
    assert_agreed(encoded([valid_event(), valid_event(**{field: value})]), False)


@settings(max_examples=500)
@given(st.lists(events, min_size=1, max_size=2), st.data(), st.booleans())
def test_the_roads_agree_about_bodies_with_a_few_bytes_changed(
    listed: list[Any], data: st.DataObject, ndjson: bool
) -> None:
    body = bytearray(b"\n".join(map(encoded, listed)) if ndjson else encoded(listed))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"]", b",", b":", b"1", b"-", b"e999", b".", b"\n", b"\0", b"\\ud800"]
            )
        )
    assert_agreed(bytes(body), ndjson)


@example(b"", False)
@example(b'{"type":"x","data":{},"n":1e400}', False)
@example(b'{"type":"x","data":{},"n":"\\ud800"}', False)
@example(b'[{"type":"x","data":{}},{"type":"","data":{},"n":1e400}]', False)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_events_or_a_refusal(body: bytes, ndjson: bool) -> None:
    try:
        body.decode()
    except UnicodeDecodeError:
        assert whole_way(body, ndjson) == MALFORMED
    else:
        assert_agreed(body, ndjson)


@given(st.lists(st.binary(max_size=3), max_size=3), st.booleans())
def test_bytes_that_are_no_text_are_refused_wherever_they_stand(parts: list[bytes], ndjson: bool) -> None:
    body = encoded(valid_event(x="?", data={"audience_id": "a", "y": "?"})).replace(
        b"?", b"\xff".join([b"", *parts, b""])
    )
    assert whole_way(body, ndjson) == MALFORMED


@given(st.lists(events, min_size=1, max_size=8))
def test_exactly_the_events_that_are_unsound_alone_are_named_in_a_request(listed: list[Any]) -> None:
    unsound = [number for number, event in enumerate(listed) if not is_sound(event)]
    outcome = whole_way(encoded(listed), False)
    if unsound:
        assert isinstance(outcome, list)
        assert sorted(set(outcome)) == unsound
    else:
        assert isinstance(outcome, ParsedEvents)
        assert outcome.qualify + outcome.disqualify + outcome.dropped == len(listed)


def test_a_refusal_is_what_all_of_them_are() -> None:
    assert issubclass(InvalidEvents, Refusal)
    assert issubclass(MalformedBody, Refusal)
