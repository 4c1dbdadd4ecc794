"""One shard's memberships in memory.

Owns: identifier key → packed words. Keeps the members of each audience counted in `sizes`, which all shards share.
Invariants: (1) `sizes` equals a recount of all shards; (2) packed words are ascending, one an audience;
(3) after loading, `merge`, `forget` and `drop` are the only things that change anything.

The keys are spread over many dicts; `placement` says why.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import cast
from zlib import crc32

from segmentd.domain.membership import V_BITS, WORD_BYTES, merge, unpack, without
from segmentd.domain.placement import SHARD_SHIFT, SLOT_SHIFT, TABLE_OF_SLOT, TABLES_PER_SHARD, table_of

Word = tuple[bytes, int]
"""(key, word): a change as journal and shards see it."""


class Shard:
    """A plain value with methods; whoever owns it makes sure that one task at a time changes it."""

    def __init__(self, sizes: defaultdict[int, int]) -> None:
        """sizes: audience number → qualified members, of all shards together."""
        self.tables: list[dict[bytes, bytes]] = [{} for _ in range(TABLES_PER_SHARD)]
        self.sizes = sizes
        self.memberships = 0
        """Words held, disqualified ones (tombstones) included."""

    def merge(self, changes: Iterable[Word]) -> None:
        """Fold changes in, any order, any repetition. Never waits."""
        tables, sizes = self.tables, self.sizes
        # An import gives all that it lists one word, and most of them had one word before: then nothing is worked out
        # again, and they share one object in memory.
        last_packed: bytes | None = None
        last_word, merged, old = -1, b"", cast("int | None", None)
        for key, word in changes:
            # As table_of, without its call.
            table = tables[TABLE_OF_SLOT[crc32(key) >> SLOT_SHIFT]]
            packed = table.get(key)
            if word != last_word or packed != last_packed:
                last_packed, last_word = packed, word
                merged, old = merge(packed, word) if packed else (word.to_bytes(WORD_BYTES, "little"), None)
            if old == word:
                continue  # It was not news.
            table[key] = merged
            if old is None:
                self.memberships += 1
                if not word & 1:
                    sizes[word >> V_BITS] += 1
            elif (old ^ word) & 1:
                sizes[word >> V_BITS] += -1 if word & 1 else 1

    def forget(self, key: bytes) -> None:
        """Drop everything about an identifier, as if it had never been heard of."""
        packed = self.tables[table_of(key)].pop(key, b"")
        self._uncount(unpack(packed))

    def drop(self, keys: Iterable[bytes], audiences: Container[int]) -> None:
        """Drop what these identifiers have in deleted audiences; identifiers with nothing else go whole."""
        for key in keys:
            table = self.tables[table_of(key)]
            packed = table.get(key, b"")
            kept = without(packed, audiences)
            if kept is packed:
                continue
            self._uncount(word for word in unpack(packed) if word >> V_BITS in audiences)
            if kept:
                table[key] = kept
            else:
                del table[key]

    def words(self, key: bytes) -> tuple[int, ...]:
        """The words of an identifier, ascending; empty if unknown."""
        packed = self.tables[table_of(key)].get(key)
        return unpack(packed) if packed else ()

    def identifiers(self) -> int:
        """How many identifiers this shard holds."""
        return sum(map(len, self.tables))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, packed words), in no particular order."""
        for table in self.tables:
            yield from table.items()

    def _uncount(self, words: Iterable[int]) -> None:
        for word in words:
            self.memberships -= 1
            if not word & 1:
                self.sizes[word >> V_BITS] -= 1

    def recount(self) -> dict[int, int]:
        """This shard's members by audience, counted afresh; audiences without members are left out."""
        counted: dict[int, int] = defaultdict(int)
        for _, packed in self.items():
            for word in unpack(packed):
                if not word & 1:
                    counted[word >> V_BITS] += 1
        return dict(counted)


def packed_of(shards: Sequence[Shard]) -> Callable[[bytes], bytes | None]:
    """A look-up of a key's packed words, None if it is unknown, for whoever looks up millions.

    One flat function instead of calls; it must place as `placement` does.
    """
    tables = [table for shard in shards for table in shard.tables]
    count = len(shards)

    def found(key: bytes) -> bytes | None:
        crc = crc32(key)
        return tables[(crc >> SHARD_SHIFT) % count * TABLES_PER_SHARD + TABLE_OF_SLOT[crc >> SLOT_SHIFT]].get(key)

    return found


def load(shards: Sequence[Shard], rows: Iterable[tuple[bytes, bytes]]) -> int:
    """Spread stored identifiers, which no shard holds yet, over the shards; their members are in `sizes` already.

    rows: (key, packed words). Returns how many there were. This is most of the time of a start, hence one flat loop
    instead of calls; it must place as `placement` does.
    """
    tables = [table for shard in shards for table in shard.tables]
    lengths = [0] * len(tables)
    loaded = 0
    for key, packed in rows:
        crc = crc32(key)
        at = (crc >> SHARD_SHIFT) % len(shards) * TABLES_PER_SHARD + TABLE_OF_SLOT[crc >> SLOT_SHIFT]
        tables[at][key] = packed
        lengths[at] += len(packed)
        loaded += 1
    for number, shard in enumerate(shards):
        held = lengths[number * TABLES_PER_SHARD : (number + 1) * TABLES_PER_SHARD]
        shard.memberships += sum(held) // WORD_BYTES
    return loaded
