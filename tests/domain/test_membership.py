"""Words, packed words, and the laws of merging."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain import membership
from segmentd.domain.membership import (
    AUDIENCE_NUMBER_MAX,
    TS_MS_MAX,
    V_BITS,
    WORD_BYTES,
    audience_of,
    decisions,
    find,
    is_qualified,
    merge,
    merge_packed,
    pack,
    ts_ms_of,
    unpack,
    v_of,
    v_of_word,
    word_of,
)
from tests.domain.strategies import words

packed_words = st.lists(words).map(lambda listed: _merged(b"", listed))


def _merged(packed: bytes, listed: list[int]) -> bytes:
    for word in listed:
        packed, _ = merge(packed, word)
    return packed


@given(st.integers(0, TS_MS_MAX), st.booleans())
def test_v_holds_time_and_decision(ts_ms: int, qualified: bool) -> None:
    v = v_of(ts_ms, qualified)
    assert (ts_ms_of(v), is_qualified(v)) == (ts_ms, qualified)
    assert v < 1 << V_BITS


def test_a_later_decision_wins_and_at_equal_time_the_disqualification() -> None:
    assert v_of(5, False) > v_of(5, True)
    assert v_of(6, True) > v_of(5, False)


@given(st.integers(0, AUDIENCE_NUMBER_MAX), st.integers(0, (1 << V_BITS) - 1))
def test_a_word_holds_audience_and_v_in_64_bits(audience: int, v: int) -> None:
    word = word_of(audience, v)
    assert (audience_of(word), v_of_word(word)) == (audience, v)
    assert word < 1 << 64


@given(packed_words)
def test_packed_words_round_trip_and_are_ascending_with_one_word_an_audience(packed: bytes) -> None:
    unpacked = unpack(packed)
    assert pack(list(unpacked)) == packed
    audiences = [audience_of(word) for word in unpacked]
    assert audiences == sorted(set(audiences))
    assert list(decisions(packed)) == [(audience_of(word), v_of_word(word)) for word in unpacked]


@given(st.lists(words), st.data())
def test_merging_does_not_depend_on_order_or_repetition(listed: list[int], data: st.DataObject) -> None:
    again = data.draw(st.permutations(listed + data.draw(st.lists(st.sampled_from(listed)) if listed else st.just([]))))
    latest: dict[int, int] = {}
    for word in listed:
        latest[audience_of(word)] = max(word, latest.get(audience_of(word), 0))
    assert _merged(b"", listed) == _merged(b"", again) == pack(sorted(latest.values()))


@given(packed_words, packed_words, packed_words)
def test_merging_packed_words_is_commutative_associative_and_idempotent(a: bytes, b: bytes, c: bytes) -> None:
    assert merge_packed(a, b) == merge_packed(b, a)
    assert merge_packed(merge_packed(a, b), c) == merge_packed(a, merge_packed(b, c))
    assert merge_packed(a, a) == merge_packed(a, b"") == merge_packed(b"", a) == a
    assert merge_packed(merge_packed(a, b), b) == merge_packed(a, b)


@given(packed_words, words)
def test_merging_a_word_is_merging_it_packed(packed: bytes, word: int) -> None:
    assert merge(packed, word)[0] == merge_packed(packed, pack([word]))


@given(packed_words, words)
def test_merge_says_what_was_replaced(packed: bytes, word: int) -> None:
    before = find(unpack(packed), audience_of(word))
    merged, old = merge(packed, word)
    if before is None:
        assert old is None
    elif before >= v_of_word(word):
        assert merged is packed
        assert old == word
    else:
        assert old == word_of(audience_of(word), before)
    assert find(unpack(merged), audience_of(word)) == max(before or 0, v_of_word(word))


@given(packed_words, st.sampled_from([0, 1, 2, 3, 7, AUDIENCE_NUMBER_MAX]))
def test_find_agrees_with_looking_at_every_word(packed: bytes, audience: int) -> None:
    assert find(unpack(packed), audience) == dict(decisions(packed)).get(audience)


def test_merging_many_audiences_of_one_identifier_unpacks_each_side_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = 0

    def counting(packed: bytes) -> tuple[int, ...]:
        nonlocal unpacked
        unpacked += len(packed) // WORD_BYTES
        return unpack(packed)

    left = pack([word_of(audience, 2) for audience in range(1_000)])
    right = pack([word_of(audience, 4) for audience in range(500, 1_500)])
    monkeypatch.setattr(membership, "unpack", counting)
    merged = merge_packed(left, right)
    assert merged == pack([word_of(audience, 2 if audience < 500 else 4) for audience in range(1_500)])
    assert unpacked == 2_000
