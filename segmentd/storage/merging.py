"""Writing what a fold gathered into `memberships` and `members`, in key order, and counting who came and went.

What becomes of an identifier follows from what it had and what it gains alone, and neighbours are often alike: an
import gives all that it lists one word. So the last answer is kept, and most identifiers cost no more than their rows.
Keys are written in order, many at a time: neighbours share LMDB pages, and `putmulti` stays in C.

Whoever does not sleep keeps a core until the next tick of the kernel, 4 ms at 250 Hz, however low its priority. So the
core is offered after every piece: where the server shares it, its queries wait a fraction of a millisecond instead.

Invariants: (1) `members` and sizes change exactly as the qualified words of `memberships` do; (2) besides the rows of
`members`, what is in memory is bounded by `PIECE_KEYS`.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, cast

import lmdb

from segmentd.domain.membership import V_BITS, WORD_BYTES, merge, merge_packed, unpack
from segmentd.domain.shard import Word
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, Index

PIECE_KEYS: Final = 100
_V_MASK: Final = (1 << V_BITS) - 1

Gained = int | bytes
"""What an identifier gains: one word as it is, several of them packed."""


class _Outcome(NamedTuple):
    """What becomes of an identifier."""

    packed: bytes
    """All its words now; empty if nothing is left."""
    members: tuple[tuple[bytes, bytes | None], ...]
    """(beginning of the key in `members`, its value; None where it is a member no more)."""
    sizes: tuple[tuple[int, int], ...]
    """(audience number, +1 or -1)."""


def gather(held: dict[bytes, Gained], changes: Sequence[Word]) -> None:
    """Merge changes, any order, into what was gathered before."""
    new = dict(changes)
    if len(new) == len(changes) and held.keys().isdisjoint(new):
        # No identifier twice, as in imports and most groups of events: nothing to look at one by one.
        held.update(new)
        return
    for key, word in changes:
        before = held.setdefault(key, word)
        if before != word:
            held[key] = _both(before, word)


def _both(before: Gained, word: int) -> Gained:
    if isinstance(before, int):
        if before >> V_BITS == word >> V_BITS:
            return max(before, word)
        before = before.to_bytes(WORD_BYTES, "little")
    return merge(before, word)[0]


class Merging:
    """Used for one transaction."""

    def __init__(self, index: Index, txn: lmdb.Transaction) -> None:
        self._index = index
        self._txn = txn
        self._puts: defaultdict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
        self._deletes: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._sizes: defaultdict[int, int] = defaultdict(int)

    def write(self, gained: dict[bytes, Gained], forgotten: Collection[bytes]) -> dict[int, int]:
        """Write it all; returns by how much the size of each audience changed.

        forgotten: keys that keep nothing but what they gain.
        """
        keys = sorted(gained if not forgotten else gained.keys() | set(forgotten))
        with self._txn.cursor(self._index.memberships_db) as cursor:
            for start in range(0, len(keys), PIECE_KEYS):
                self._write_piece(cursor, keys[start : start + PIECE_KEYS], gained, forgotten)
                os.sched_yield()
        self._write_members()
        return self._sizes

    def _write_piece(
        self, cursor: lmdb.Cursor, keys: list[bytes], gained: dict[bytes, Gained], forgotten: Collection[bytes]
    ) -> None:
        stored = cast("dict[bytes, bytes]", dict(cursor.getmulti(keys)))
        rows: list[tuple[bytes, bytes]] = []
        puts, deletes, sizes = self._puts, self._deletes, self._sizes
        last_old, last_gain = b"", cast("Gained", b"")
        packed, members, grown = _NOTHING
        for key in keys:
            old, gain = stored.get(key, b""), gained.get(key, b"")
            if key in forgotten:
                packed, members, grown = _replaced(old, _packed(gain))
                last_gain = b""
            elif old != last_old or gain != last_gain:
                packed, members, grown = _outcome(old, gain)
                last_old, last_gain = old, gain
            if packed == old:
                continue
            if packed:
                rows.append((key, packed))
            elif cursor.set_key(key):
                cursor.delete()
            for beginning, value in members:
                if value is None:
                    deletes[beginning].append(key)
                else:
                    puts[beginning].append((beginning + key, value))
            for number, by in grown:
                sizes[number] += by
        cursor.putmulti(rows)

    def _write_members(self) -> None:
        with self._txn.cursor(self._index.members_db) as cursor:
            for beginning in sorted(self._deletes):
                for key in self._deletes[beginning]:
                    if cursor.set_key(beginning + key):
                        cursor.delete()
            for beginning in sorted(self._puts):
                rows = self._puts[beginning]
                for start in range(0, len(rows), PIECE_KEYS):
                    cursor.putmulti(rows[start : start + PIECE_KEYS])
                    os.sched_yield()


_NOTHING: Final = _Outcome(b"", (), ())


def _packed(gain: Gained) -> bytes:
    return gain if isinstance(gain, bytes) else gain.to_bytes(WORD_BYTES, "little")


def _outcome(old: bytes, gain: Gained) -> _Outcome:
    if isinstance(gain, bytes):
        return _replaced(old, merge_packed(old, gain))
    packed, was = merge(old, gain)
    if packed is old:
        return _Outcome(old, (), ())
    number = gain >> V_BITS
    was_member = was is not None and not was & 1
    if not gain & 1:
        row = (AUDIENCE_KEY.pack(number), V_VALUE.pack(gain & _V_MASK))
        return _Outcome(packed, (row,), () if was_member else ((number, 1),))
    if was_member:
        return _Outcome(packed, ((AUDIENCE_KEY.pack(number), None),), ((number, -1),))
    return _Outcome(packed, (), ())


def _replaced(old: bytes, new: bytes) -> _Outcome:
    """The same for any two states; words that are gone were forgotten."""
    before, after = _members(unpack(old)), _members(unpack(new))
    members: list[tuple[bytes, bytes | None]] = [
        (AUDIENCE_KEY.pack(number), V_VALUE.pack(v)) for number, v in after.items() if before.get(number) != v
    ]
    members += [(AUDIENCE_KEY.pack(number), None) for number in before.keys() - after.keys()]
    came = [(number, 1) for number in after.keys() - before.keys()]
    went = [(number, -1) for number in before.keys() - after.keys()]
    return _Outcome(new, tuple(members), (*came, *went))


def _members(words: Iterable[int]) -> dict[int, int]:
    """audience number → v, of those where the identifier is a member."""
    return {word >> V_BITS: word & _V_MASK for word in words if not word & 1}
