"""A membership is one integer, and merging is taking the larger one.

For one identifier and one audience, `v = ts_ms * 2 + (1 if disqualified else 0)`. The larger `v` wins: the later
decision, and at equal time the disqualification. `max` is commutative, associative and idempotent, so the state is a
function of the *set* of events, whatever their order, duplication or batching; replay and recovery are the same fold.

On disk and in memory a membership is a *word*: `audience_number << 44 | v`, 64 bits. For one audience comparing words
is comparing `v`, so words are merged by `max` too. All memberships of one identifier are its words, ascending, as
little-endian u64 in one bytes object (*packed*): 8 bytes each instead of a hundred for Python objects.
"""

from bisect import bisect_left
from collections.abc import Container, Iterator
from functools import lru_cache
from struct import Struct
from typing import Final

V_BITS: Final = 44
"""ts_ms below 2**43 ms, which ends in the year 2248."""
AUDIENCE_BITS: Final = 20
AUDIENCE_NUMBER_MAX: Final = (1 << AUDIENCE_BITS) - 1
TS_MS_MAX: Final = (1 << (V_BITS - 1)) - 1
WORD_BYTES: Final = 8
_V_MASK: Final = (1 << V_BITS) - 1


def v_of(ts_ms: int, qualified: bool) -> int:
    """The membership integer. ts_ms: milliseconds since the epoch, 0..TS_MS_MAX."""
    return ts_ms * 2 + (not qualified)


def ts_ms_of(v: int) -> int:
    """When the decision was taken, milliseconds since the epoch."""
    return v >> 1


def is_qualified(v: int) -> bool:
    """True if the decision is a qualification."""
    return not v & 1


def word_of(audience: int, v: int) -> int:
    """audience: its number, 0..AUDIENCE_NUMBER_MAX. v: 0..2**44-1."""
    return audience << V_BITS | v


def audience_of(word: int) -> int:
    """The audience number of a word."""
    return word >> V_BITS


def v_of_word(word: int) -> int:
    """The membership integer of a word."""
    return word & _V_MASK


@lru_cache(maxsize=4096)
def _layout(count: int) -> Struct:
    return Struct(f"<{count}Q")


def pack(words: list[int]) -> bytes:
    """words: ascending, at most one an audience."""
    return _layout(len(words)).pack(*words)


def unpack(packed: bytes) -> tuple[int, ...]:
    """The words of one identifier, ascending."""
    return _layout(len(packed) // WORD_BYTES).unpack(packed)


def find(words: tuple[int, ...], audience: int) -> int | None:
    """The `v` of `audience` among `words`, or None."""
    first = audience << V_BITS
    at = bisect_left(words, first)
    if at < len(words) and (v := words[at] - first) <= _V_MASK:
        return v
    return None


def merge(packed: bytes, word: int) -> tuple[bytes, int | None]:
    """Merge one word into the memberships of one identifier.

    Returns the new packed bytes, and the word that was replaced: None if the audience is new, and `word` itself (with
    `packed` unchanged, the same object) if the word was not news.
    """
    words = _layout(len(packed) // WORD_BYTES).unpack(packed)
    at = bisect_left(words, word >> V_BITS << V_BITS)
    if at < len(words) and words[at] >> V_BITS == word >> V_BITS:
        old: int = words[at]
        if old >= word:
            return packed, word
        offset = at * WORD_BYTES
        return packed[:offset] + word.to_bytes(WORD_BYTES, "little") + packed[offset + WORD_BYTES :], old
    offset = at * WORD_BYTES
    return packed[:offset] + word.to_bytes(WORD_BYTES, "little") + packed[offset:], None


def merge_packed(left: bytes, right: bytes) -> bytes:
    """Merge all memberships of one identifier with others of the same identifier. Linear in both."""
    if len(right) == WORD_BYTES:
        return merge(left, int.from_bytes(right, "little"))[0]
    latest = {word >> V_BITS: word for word in unpack(left)}
    for word in unpack(right):
        if latest.get(word >> V_BITS, -1) < word:
            latest[word >> V_BITS] = word
    return pack(sorted(latest.values()))


def without(packed: bytes, audiences: Container[int]) -> bytes:
    """The words of one identifier but for those of `audiences`; `packed` itself if there are none of them."""
    words = unpack(packed)
    kept = [word for word in words if word >> V_BITS not in audiences]
    return packed if len(kept) == len(words) else pack(kept)


def decisions(packed: bytes) -> Iterator[tuple[int, int]]:
    """(audience number, v) of each membership, by ascending audience number."""
    for word in unpack(packed):
        yield word >> V_BITS, word & _V_MASK
