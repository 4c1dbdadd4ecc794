"""What a segment id and a definition may be, and how a wrong one is named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.events import EventRules
from segmentd.domain.refusals import InvalidSegment, MalformedBody, PassthroughDisabled, Refusal
from segmentd.domain.segments import SegmentDefinition, SegmentRules, normalise_segment_id, parse_definition
from tests.domain.strategies import RULES as EVENT_RULES
from tests.domain.strategies import SCHEMA, encoded, json_values

RULES = SegmentRules(
    EVENT_RULES, description_chars_max=10, metadata_entries_max=2, metadata_key_chars_max=4, metadata_value_chars_max=5
)
AUDIENCE = "definition.external.external_audience_id"


def body(**replaced: Any) -> dict[str, Any]:
    return {
        "description": "d",
        "metadata": {"k": "v"},
        "definition": {"external": {"external_audience_id": "audience_1"}},
        **replaced,
    }


def external(audience_id: Any, **more: Any) -> dict[str, Any]:
    return body(definition={"external": {"external_audience_id": audience_id, **more}})


def test_a_whole_definition_is_read() -> None:
    assert parse_definition(encoded(body()), RULES) == SegmentDefinition("audience_1", "d", {"k": "v"})


@pytest.mark.parametrize("absent", [{}, {"description": None, "metadata": None}, {"revision": 7}])
def test_everything_but_the_audience_may_be_absent(absent: dict[str, Any]) -> None:
    sent = {"definition": {"external": {"external_audience_id": "a"}}, **absent}
    assert parse_definition(encoded(sent), RULES) == SegmentDefinition("a", "", {})


BAD: list[tuple[Any, str, str]] = [
    (body(name="x"), "name", "Unknown field; known are: revision, description"),
    (body(**{"n" * 100: 1}), "n" * 61 + "...", "Unknown field"),
    (body(description=1), "description", "Must be a string"),
    (body(description="x" * 11), "description", "11 characters long; at most 10"),
    (body(description="a\0"), "description", "NUL"),
    (body(metadata=[]), "metadata", "Must be an object of strings"),
    (body(metadata={"a": "", "b": "", "c": ""}), "metadata", "Has 3 entries; at most 2"),
    (body(metadata={"abcde": ""}), "metadata", "5 characters long; at most 4"),
    (body(metadata={"a": "123456"}), "metadata.a", "6 characters long; at most 5"),
    (body(metadata={"a": 1}), "metadata.a", "Must be a string"),
    (body(metadata={"a": "\0"}), "metadata.a", "NUL"),
    (body(definition=None), "definition", "Must be an object"),
    (body(definition={}), "definition.external", "Must be an object"),
    (body(definition={"and": []}), "definition", "Only `external` definitions are served here; this one has: and"),
    (body(definition={"external": {}, "and": []}), "definition.and", "Unknown field"),
    (body(definition={"external": "a"}), "definition.external", "Must be an object"),
    (external("a", x=1), "definition.external.x", "Unknown field"),
    (external(None), AUDIENCE, "Must be a string"),
    (external(""), AUDIENCE, "must not be empty"),
    (external("a" * 129), AUDIENCE, "129 characters long"),
    (external("a/b"), AUDIENCE, "letters, digits"),
]


@pytest.mark.parametrize(("sent", "field", "message"), BAD)
def test_a_wrong_definition_is_named_with_field_and_reason(sent: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidSegment, match=message) as refused:
        parse_definition(encoded(sent), RULES)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "no valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (encoded(body())[:-1], "no valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"description":"\xfc"}', "not UTF-8: byte 16 "),
        (encoded(body(description="\ud800")), "no valid JSON"),
        (b'{"description":1e400}', "no valid JSON: Number out of range"),
        (b'{"revision":' + b"1" * 5_000 + b"}", "no valid JSON: Integer value out of range"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(sent: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        parse_definition(sent, RULES)


def test_a_definition_is_refused_while_the_functionality_is_off() -> None:
    off = SegmentRules(EventRules(SCHEMA, passthrough_enabled=False))
    with pytest.raises(PassthroughDisabled, match=r"\[passthrough\] enabled"):
        parse_definition(encoded(body()), off)
    with pytest.raises(InvalidSegment):
        parse_definition(encoded(external("")), off)


@given(st.binary(max_size=40) | json_values.map(encoded))
def test_any_body_is_a_definition_or_a_refusal(sent: bytes) -> None:
    with pytest.raises(Refusal):
        parse_definition(sent, RULES)


@given(st.sampled_from(["description", "metadata", "definition", "revision", "x"]), json_values)
def test_anything_in_one_place_is_a_definition_or_a_refusal_that_names_a_field(field: str, value: Any) -> None:
    sent = json.dumps(body(**{field: value}), ensure_ascii=False).encode()
    try:
        definition = parse_definition(sent, RULES)
    except InvalidSegment as refused:
        named = refused.field
    else:
        named = field
        assert definition.external_audience_id
    assert named.split(".")[0] == field


@pytest.mark.parametrize(
    ("text", "segment_id"), [("a", "a"), ("An_ID_9", "an_id_9"), ("_", "_"), ("X" * 128, "x" * 128)]
)
def test_a_segment_id_is_compared_in_lower_case(text: str, segment_id: str) -> None:
    assert normalise_segment_id(text, 128) == segment_id


# U+212A and U+0130 become ASCII letters in lower case, and are none.
@pytest.mark.parametrize(
    "text", ["", "a/b", "a b", "a-b", "a.b", "ä", "\u212a", "\u0130", "a\n", "a\0", "..", "%41", "x" * 129]
)
def test_anything_else_is_no_segment_id(text: str) -> None:
    with pytest.raises(InvalidSegment) as refused:
        normalise_segment_id(text, 128)
    assert refused.value.field == "segment_id"
