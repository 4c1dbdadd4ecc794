"""The overlay: what the journal has and the index has not yet, for whoever looks things up without the owner's memory.

Owns packed words by identifier key, gathered from journal records in their order. A look-up merges them over what the
index has; merging is idempotent, so it does no harm that both may have the same.

Invariants:
1. With every record between the one that the index stands for and the last one folded in here, `over` gives the words
   of a key as of the last one.
2. What the index has taken over is dropped, a table at a time: at most `TABLE_CHANGES` changes and those of one record
   are looked through longer than they must.
3. What was forgotten is held no longer, and hides what the index still has of it.

There are several tables instead of one, because a dict that grows is copied in one go while nothing else runs; and not
very many, because a look-up asks all of them. A large dict is also freed in one go, so what is dropped is freed in
pieces, somewhat faster than changes come.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from segmentd.domain.membership import WORD_BYTES, merge, merge_packed
from segmentd.domain.shard import Word
from segmentd.storage.records import JournalRecord

TABLE_CHANGES: Final = 65_536
FREED_MIN: Final = 1_000
"""Entries that one `drop` frees at least, if there are so many; a tenth of a millisecond."""


class _Table(msgspec.Struct):
    """What a range of records brought."""

    packed: dict[bytes, bytes] = {}
    changes: int = 0
    last_seq: int = 0


class Overlay:
    """Plain value; whoever owns it makes sure that one task at a time uses it."""

    def __init__(self) -> None:
        self._tables: list[_Table] = []
        self._forgotten: dict[bytes, int] = {}
        """key → number of the record that forgot it; the tables have only what came after."""
        self._dropped: list[dict[bytes, bytes]] = []
        """Nobody looks into these any more."""
        self._folded_seq = 0
        self._gained = 0
        """Changes since the last `drop`."""

    @property
    def changes(self) -> int:
        """Changes that were folded in and not dropped yet."""
        return sum(table.changes for table in self._tables)

    @property
    def entries(self) -> int:
        """Entries that take room; an identifier has at most one in each table."""
        return sum(len(table.packed) for table in self._tables) + sum(map(len, self._dropped))

    def fold(self, seq: int, record: JournalRecord) -> None:
        """Take record `seq` in; they come in order."""
        changes = len(record.changes) + len(record.imported)
        if changes:
            table = self._open_table()
            _merge(table.packed, record.changes)
            _merge(table.packed, record.imported)
            table.changes += changes
            table.last_seq = seq
            self._gained += changes
        for key, _ in record.forgotten:
            for table in self._tables:
                table.packed.pop(key, None)
            for packed in self._dropped:
                packed.pop(key, None)
            self._forgotten[key] = seq

    def over(self, key: bytes, stored: bytes | None) -> bytes:
        """The packed words of a key; `stored` is what the index has."""
        found = b"" if stored is None or key in self._forgotten else stored
        for table in self._tables:
            packed = table.packed.get(key)
            if packed is not None:
                found = merge_packed(found, packed) if found else packed
        return found

    def drop(self, folded_seq: int) -> None:
        """The index that is looked into from now on stands for `folded_seq`. Call it before each look, it is cheap."""
        if folded_seq != self._folded_seq:
            self._folded_seq = folded_seq
            while self._tables and self._tables[0].last_seq <= folded_seq:
                self._dropped.append(self._tables.pop(0).packed)
            self._forgotten = {key: seq for key, seq in self._forgotten.items() if seq > folded_seq}
        if self._dropped:
            self._free(FREED_MIN + 2 * self._gained)
        self._gained = 0

    def clear(self) -> None:
        """Hold nothing."""
        self._tables.clear()
        self._dropped.clear()
        self._forgotten.clear()

    def _free(self, entries: int) -> None:
        table = self._dropped[-1]
        for _ in range(min(entries, len(table))):
            table.popitem()
        if not table:
            self._dropped.pop()

    def _open_table(self) -> _Table:
        if not self._tables or self._tables[-1].changes >= TABLE_CHANGES:
            self._tables.append(_Table())
        return self._tables[-1]


def _merge(table: dict[bytes, bytes], changes: Iterable[Word]) -> None:
    for key, word in changes:
        held = table.get(key)
        table[key] = word.to_bytes(WORD_BYTES, "little") if held is None else merge(held, word)[0]
