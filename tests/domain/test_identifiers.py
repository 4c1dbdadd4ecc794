"""Identifier keys: what a value may be, and that a key says which value it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.identifiers import KEY_VALUE_BYTES_MAX, Confidence, IdentifierKind, IdentifierSchema
from tests.domain.strategies import SCHEMA

USER, EMAIL = SCHEMA.kinds["fs_user_id"], SCHEMA.kinds["email"]
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@given(values)
def test_a_key_is_the_kind_number_and_the_value_and_reads_back(value: str) -> None:
    key = SCHEMA.key(USER, value)
    assert key == b"\0" + value.encode()
    assert SCHEMA.parse_key(key) == ("fs_user_id", value)


@given(values)
def test_email_is_compared_in_lower_case(value: str) -> None:
    key = SCHEMA.key(EMAIL, value)
    assert key == b"\1" + value.lower().encode()
    assert SCHEMA.key(EMAIL, SCHEMA.parse_key(key)[1]) == key


def test_other_identifiers_are_compared_as_they_are() -> None:
    assert SCHEMA.key(EMAIL, "Ada@Mail.Example") == SCHEMA.key(EMAIL, "ada@mail.example")
    assert SCHEMA.key(USER, "Ada") != SCHEMA.key(USER, "ada")


def test_the_same_value_of_two_kinds_is_two_identifiers() -> None:
    assert SCHEMA.key(USER, "x") != SCHEMA.key(EMAIL, "x")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "must not be empty"),
        ("a\0b", "U\\+0000 at position 1"),
        ("\x1f", "U\\+001F at position 0"),
        ("\x7f", "U\\+007F"),
        ("line\nbreak", "U\\+000A at position 4"),
        ("\x85", "U\\+0085"),
        ("a\ud800", "U\\+D800 at position 1"),
        ("\udfff", "U\\+DFFF"),
        ("x" * 257, "257 bytes long in UTF-8; at most 256"),
        ("x" * 10_240, "10240 bytes long"),
        ("ü" * 129, "258 bytes long"),
    ],
)
def test_a_value_that_cannot_be_a_key_is_refused_with_its_reason(value: str, reason: str) -> None:
    for kind in SCHEMA.kinds.values():
        with pytest.raises(ValueError, match=reason):
            SCHEMA.key(kind, value)


@pytest.mark.parametrize("value", ["x" * 256, "ü" * 128, "😀" * 64, "a b", "日本", "\u200b", "\u2028", "\xa0"])
def test_the_limit_counts_bytes_and_what_is_no_control_is_allowed(value: str) -> None:
    assert SCHEMA.parse_key(SCHEMA.key(USER, value)) == ("fs_user_id", value)


def test_the_limit_is_taken_of_the_value_in_lower_case() -> None:
    # U+0130 in lower case is two characters: two bytes become three.
    longer = "\u0130" * 100
    with pytest.raises(ValueError, match="300 bytes long"):
        SCHEMA.key(EMAIL, longer)
    assert len(SCHEMA.key(USER, longer)) == 201


@given(st.text())
def test_any_text_gives_a_key_within_the_limit_or_a_reason(value: str) -> None:
    for kind in SCHEMA.kinds.values():
        try:
            key = SCHEMA.key(kind, value)
        except ValueError:
            continue
        assert 2 <= len(key) <= 257
        assert SCHEMA.parse_key(key)[0] == kind.name


def test_a_kind_that_is_not_configured_any_more_is_shown_by_its_number() -> None:
    assert SCHEMA.parse_key(b"\x09old") == ("#9", "old")


@pytest.mark.parametrize(("names", "numbers"), [(["a", "a"], [0, 1]), (["a", "b"], [0, 0])])
def test_names_and_numbers_are_unique(names: list[str], numbers: list[int]) -> None:
    kinds = [IdentifierKind(name, Confidence.HIGH, number) for name, number in zip(names, numbers, strict=True)]
    with pytest.raises(ValueError, match="unique"):
        IdentifierSchema(kinds)


@pytest.mark.parametrize("value_bytes_max", [0, KEY_VALUE_BYTES_MAX + 1])
def test_a_limit_that_no_key_could_hold_is_refused(value_bytes_max: int) -> None:
    with pytest.raises(ValueError, match="value_bytes_max"):
        IdentifierSchema([USER], value_bytes_max)
