"""Bad uploads: each is refused whole, and the refusal names the event, the field and the reason."""

import re
from typing import Any

import pytest

from segmentd.domain.events import EventRules, ParsedEvents, parse_events
from segmentd.domain.refusals import InvalidEvent, InvalidEvents, MalformedBody, PassthroughDisabled
from tests.domain.strategies import FUTURE_SECONDS_MAX, NOW_MS, RULES, SCHEMA, encoded, valid_event

NOW = NOW_MS // 1000


def parse(body: bytes, *, ndjson: bool = False, rules: EventRules = RULES) -> ParsedEvents:
    return parse_events(body, ndjson=ndjson, rules=rules, now_ms=NOW_MS)


def invalids(events: Any, rules: EventRules = RULES) -> list[InvalidEvent]:
    """The problems that are listed for a request."""
    body = events if isinstance(events, bytes) else encoded(events)
    with pytest.raises(InvalidEvents) as refused:
        parse(body, rules=rules)
    return refused.value.invalids


def data(**fields: Any) -> dict[str, Any]:
    return valid_event(data={"audience_id": "audience_1", **fields})


def identified(**identifiers: Any) -> dict[str, Any]:
    return valid_event(identifiers=identifiers)


def without(field: str) -> dict[str, Any]:
    event = valid_event()
    del event[field]
    return event


def audience(audience_id: Any) -> dict[str, Any]:
    return valid_event(data={"audience_id": audience_id})


BAD_EVENTS: list[tuple[str, Any, str, str, str]] = [
    ("no object", 7, "", "WRONG_TYPE", "must be an object, not a number"),
    ("null", None, "", "WRONG_TYPE", "not null"),
    ("array in array", [valid_event()], "", "WRONG_TYPE", "not an array"),
    ("type missing", without("type"), "type", "MISSING", "non-empty string"),
    ("type empty", valid_event(type=""), "type", "INVALID_VALUE", "non-empty string"),
    ("type number", valid_event(type=5), "type", "WRONG_TYPE", "non-empty string"),
    ("action missing", without("action"), "action", "MISSING", "`qualify` or `disqualify`"),
    ("action unknown", valid_event(action="Qualify"), "action", "UNKNOWN_ACTION", "`qualify` or `disqualify`"),
    ("action array", valid_event(action=["qualify"]), "action", "WRONG_TYPE", "`qualify` or `disqualify`"),
    ("identifiers missing", without("identifiers"), "identifiers", "MISSING", "must be an object"),
    ("identifiers array", valid_event(identifiers=["a"]), "identifiers", "WRONG_TYPE", "must be an object"),
    ("none", identified(), "identifiers", "NO_HIGH_CONFIDENCE", "Exactly one high-confidence .* fs_user_id, email"),
    ("low alone", identified(vuid="v"), "identifiers", "NO_HIGH_CONFIDENCE", "fs_user_id, email"),
    ("two high", identified(fs_user_id="u", email="e"), "identifiers", "SEVERAL_HIGH_CONFIDENCE", "fs_user_id, email"),
    ("unknown name", identified(fs_user_id="u", phone="1"), "identifiers.phone", "UNKNOWN_IDENTIFIER", "known are: fs"),
    ("long name", identified(**{"n" * 300: "1"}), f"identifiers.{'n' * 61}...", "UNKNOWN_IDENTIFIER", "known are"),
    ("value number", identified(fs_user_id=17), "identifiers.fs_user_id", "WRONG_TYPE", "a string, not a number"),
    ("value null", identified(email=None), "identifiers.email", "WRONG_TYPE", "a string, not null"),
    ("low value", identified(fs_user_id="u", vuid=1), "identifiers.vuid", "WRONG_TYPE", "a string, not a number"),
    ("value empty", identified(fs_user_id=""), "identifiers.fs_user_id", "INVALID_VALUE", "must not be empty"),
    ("10 kB", identified(fs_user_id="x" * 10_240), "identifiers.fs_user_id", "INVALID_VALUE", "10240 bytes long.* 256"),
    ("NUL", identified(fs_user_id="a\0"), "identifiers.fs_user_id", "INVALID_VALUE", r"U\+0000 at position 1"),
    ("data missing", without("data"), "data", "MISSING", "`data` must be an object"),
    ("data string", valid_event(data="a"), "data", "WRONG_TYPE", "`data` must be an object"),
    ("audience missing", valid_event(data={}), "data.audience_id", "MISSING", "must be a string"),
    ("audience number", audience(1), "data.audience_id", "WRONG_TYPE", "must be a string"),
    ("audience empty", audience(""), "data.audience_id", "INVALID_VALUE", "must not be empty"),
    ("audience too long", audience("a" * 129), "data.audience_id", "INVALID_VALUE", "129 characters long; at most 128"),
    ("audience blank", audience("a b"), "data.audience_id", "INVALID_VALUE", "letters, digits"),
    ("audience slash", audience("a/b"), "data.audience_id", "INVALID_VALUE", "letters, digits"),
    ("audience dot first", audience("../x"), "data.audience_id", "INVALID_VALUE", "begins with"),
    ("audience umlaut", audience("é"), "data.audience_id", "INVALID_VALUE", "letters, digits"),
    ("audience newline", audience("a\n"), "data.audience_id", "INVALID_VALUE", "letters, digits"),
    ("ts negative", data(ts=-1), "data.ts", "NEGATIVE", "must not be negative"),
    ("ts a bit negative", data(ts=-0.001), "data.ts", "NEGATIVE", "must not be negative"),
    ("ts in milliseconds", data(ts=NOW_MS), "data.ts", "IN_THE_FUTURE", "looks like milliseconds"),
    ("ts far future", data(ts=NOW + 86_400), "data.ts", "IN_THE_FUTURE", "more than 3600 seconds ahead of the clock"),
    ("ts just too far", data(ts=NOW + FUTURE_SECONDS_MAX + 0.001), "data.ts", "IN_THE_FUTURE", "3600 seconds ahead"),
    ("ts 1e308", data(ts=1e308), "data.ts", "IN_THE_FUTURE", "looks like milliseconds"),
    ("ts -1e308", data(ts=-1e308), "data.ts", "NEGATIVE", "must not be negative"),
    ("ts of 25 digits", data(ts=10**25), "data.ts", "IN_THE_FUTURE", "looks like milliseconds"),
    ("ts with 4 decimals", data(ts=1_748_851_070.1234), "data.ts", "TOO_MANY_DECIMALS", "at most three decimals"),
    ("ts with 6 decimals", data(ts=1_748_851_070.000001), "data.ts", "TOO_MANY_DECIMALS", "at most three decimals"),
    ("ts tiny", data(ts=5e-324), "data.ts", "TOO_MANY_DECIMALS", "at most three decimals"),
    ("ts boolean", data(ts=True), "data.ts", "WRONG_TYPE", "a number of seconds, not a boolean"),
    ("ts string", data(ts="1748851070"), "data.ts", "WRONG_TYPE", "a number of seconds, not a string"),
    ("ts object", data(ts={}), "data.ts", "WRONG_TYPE", "a number of seconds, not an object"),
]


@pytest.mark.parametrize(
    ("name", "event", "field", "reason", "message"), BAD_EVENTS, ids=[bad[0] for bad in BAD_EVENTS]
)
def test_a_bad_event_is_named_with_number_field_and_reason(
    name: str, event: Any, field: str, reason: str, message: str
) -> None:
    [found] = invalids([valid_event(), valid_event(), event])
    assert (found.event, found.field, found.reason) == (2, field, reason)
    assert re.search(message, found.message)


@pytest.mark.parametrize("ts", [b"1e400", b"1e99999", b"9" * 400 + b".0"])
def test_a_time_beyond_the_range_of_doubles_is_named_like_any_other_in_the_future(ts: bytes) -> None:
    body = encoded([valid_event(), data(ts=7_777)]).replace(b"7777", ts)
    [found] = invalids(body)
    assert (found.event, found.field, found.reason) == (1, "data.ts", "IN_THE_FUTURE")
    [found] = invalids(encoded(data(ts=7_777)).replace(b"7777", b"-" + ts))
    assert (found.event, found.field, found.reason) == (0, "data.ts", "NEGATIVE")


def test_every_problem_of_every_invalid_event_is_named_and_nothing_is_applied() -> None:
    events = [
        valid_event(),
        {"type": "passthrough", "action": "x", "identifiers": {"a": "b", "email": 1}, "data": {"ts": "t"}},
        valid_event(),
        data(ts=-1),
        "event",
        {"type": "other"},
    ]
    found = [(problem.event, problem.field, problem.reason) for problem in invalids(events)]
    assert found == [
        (1, "action", "UNKNOWN_ACTION"),
        (1, "identifiers.a", "UNKNOWN_IDENTIFIER"),
        (1, "identifiers.email", "WRONG_TYPE"),
        (1, "data.audience_id", "MISSING"),
        (1, "data.ts", "WRONG_TYPE"),
        (3, "data.ts", "NEGATIVE"),
        (4, "", "WRONG_TYPE"),
    ]


def test_the_list_of_problems_is_cut_and_the_total_is_not() -> None:
    rules = EventRules(SCHEMA, invalids_listed_max=3)
    with pytest.raises(InvalidEvents) as refused:
        parse(encoded([data(ts=-1)] * 10), rules=rules)
    assert [problem.event for problem in refused.value.invalids] == [0, 1, 2]
    assert refused.value.total == 10
    assert refused.value.message == "10 problems found; no event of the request was applied"


def test_a_bad_line_of_ndjson_is_named_like_an_event_of_an_array() -> None:
    body = b"\n".join([encoded(valid_event()), encoded(data(ts=True))])
    with pytest.raises(InvalidEvents) as refused:
        parse(body, ndjson=True)
    assert [(problem.event, problem.field) for problem in refused.value.invalids] == [(1, "data.ts")]


def test_passthrough_events_are_refused_while_the_functionality_is_off() -> None:
    off = EventRules(SCHEMA, passthrough_enabled=False)
    with pytest.raises(PassthroughDisabled, match=r"\[passthrough\] enabled"):
        parse(encoded(valid_event()), rules=off)
    assert parse(encoded({"type": "fullstack"}), rules=off).dropped == 1
    assert invalids(data(ts=-1), off)


# A body as a whole: no events, too many, no JSON.

DEEP = b"[" * 100_000
BAD_BODIES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "The body is empty"),
    ("blank", b" \r\n\t", "The body is empty"),
    ("empty array", b"[]", "has no events"),
    ("501 events", encoded([valid_event()] * 501), "has 501 events; at most 500 .*events_per_request_max"),
    ("501 bad events", encoded([1] * 501), "has 501 events"),
    ("deep arrays", DEEP + b"]" * 100_000, "nested too deeply"),
    ("deep arrays without end", DEEP, "nested too deeply"),
    ("deep objects", b'{"a":' * 100_000, "nested too deeply"),
    ("deep in an ignored field", encoded(valid_event(x=7_777)).replace(b"7777", DEEP), "nested too deeply"),
    ("truncated", encoded([valid_event()])[:-1], "no valid JSON: Input data was truncated"),
    ("truncated inside", encoded(valid_event())[:-30], "no valid JSON"),
    ("no JSON", b"<event/>", r"no valid JSON: invalid character \(byte 0\)"),
    ("two values", encoded(valid_event()) * 2, "no valid JSON: trailing characters"),
    ("byte order mark", b"\xef\xbb\xbf" + encoded(valid_event()), r"invalid character \(byte 0\)"),
    ("NaN", encoded(data(ts=float("nan"))), r"no valid JSON: invalid character \(byte \d+\)"),
    ("Infinity", encoded(data(ts=float("inf"))), "no valid JSON: invalid character"),
    ("lone surrogate", encoded(identified(fs_user_id="\ud800")), "no valid JSON"),
    ("surrogates in wrong order", encoded(identified(fs_user_id="\udc00\ud800")), "no valid JSON: invalid utf-16"),
    ("surrogate as UTF-8", encoded(identified(fs_user_id="?")).replace(b"?", b"\xed\xa0\x80"), "not UTF-8: byte 76 "),
    ("ISO-8859-1", encoded(identified(fs_user_id="?")).replace(b"?", b"\xfc"), r"not UTF-8: byte 76 \(line 1\)"),
    ("ISO-8859-1 in an ignored field", encoded(valid_event(x="?")).replace(b"?", b"\xfc"), "not UTF-8: byte 146 "),
    ("digits without end", encoded(data(ts=7_777)).replace(b"7777", b"1" * 5_000), "out of range"),
]


@pytest.mark.parametrize(("name", "body", "message"), BAD_BODIES, ids=[bad[0] for bad in BAD_BODIES])
def test_a_body_that_cannot_be_read_is_refused_with_place_and_reason(name: str, body: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        parse(body)


LINE = encoded(valid_event())
BAD_NDJSON: list[tuple[str, bytes, str]] = [
    ("empty", b"", "no events"),
    ("blank lines", b"\n \r\n", "no events"),
    (
        "third line truncated",
        b"\n".join([LINE, LINE, LINE[:-1], LINE]),
        "Line 3 .* no valid JSON: Input data was trunc",
    ),
    ("second line no JSON", b"\r\n".join([LINE, b"type,action", LINE]), "Line 2 .* no valid JSON: invalid character"),
    ("after an empty line", b"\n".join([LINE, b"", b"{"]), "Line 3 "),
    ("NaN", LINE + b"\n" + encoded(data(ts=float("nan"))), r"Line 2 .*invalid character \(byte \d+\)"),
    ("ISO-8859-1", LINE + b"\n" + LINE.replace(b"u-1", b"\xfc"), r"not UTF-8: byte \d+ \(line 2\)"),
    ("deep", LINE + b"\n" + DEEP, "nested too deeply"),
    ("501 lines", (LINE + b"\n") * 501, "has 501 events"),
]


@pytest.mark.parametrize(("name", "body", "message"), BAD_NDJSON, ids=[bad[0] for bad in BAD_NDJSON])
def test_ndjson_that_cannot_be_read_is_refused_with_its_line(name: str, body: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        parse(body, ndjson=True)
