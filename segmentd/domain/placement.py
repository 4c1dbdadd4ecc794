"""Which shard owns a key, and which table inside the shard.

CRC-32 is stable across processes, versions and machines (Python's `hash` is not), evenly spread, and one C call. Its
high bits choose the table, the others the shard, so that the two choices are independent.

A table is a dict, and a dict that grows is copied in one go while nothing else runs (about 30 ms a million entries). So
there are many small ones, and they are not equally full: from one to the next the share rises by a constant factor, up
to twice the first. Equal ones would all have to grow in the same moment.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, Final, TypeVar
from zlib import crc32

TABLES_PER_SHARD: Final = 256
SHARD_SHIFT: Final = 4
SLOT_SHIFT: Final = 19
_SLOTS: Final = 1 << (32 - SLOT_SHIFT)


def _tables_by_slot() -> tuple[int, ...]:
    ends: list[float] = []
    for table in range(TABLES_PER_SHARD):
        ends.append((ends[-1] if ends else 0.0) + 2 ** (table / TABLES_PER_SHARD))
    return tuple(bisect_right(ends, (slot + 0.5) / _SLOTS * ends[-1]) for slot in range(_SLOTS))


TABLE_OF_SLOT: Final = _tables_by_slot()
"""crc >> SLOT_SHIFT → number of the table."""

Keyed = TypeVar("Keyed", bound=tuple[bytes, Any])


def shard_of(key: bytes, shards: int) -> int:
    """Number of the shard, 0..shards-1."""
    return (crc32(key) >> SHARD_SHIFT) % shards


def table_of(key: bytes) -> int:
    """Number of the table inside its shard, 0..TABLES_PER_SHARD-1."""
    return TABLE_OF_SLOT[crc32(key) >> SLOT_SHIFT]


def split(changes: Iterable[Keyed], shards: int) -> list[tuple[int, list[Keyed]]]:
    """(shard number, its changes in order) for each shard that has any; places as `shard_of` does, without its call."""
    parts: list[list[Keyed]] = [[] for _ in range(shards)]
    for change in changes:
        parts[(crc32(change[0]) >> SHARD_SHIFT) % shards].append(change)
    return [(number, part) for number, part in enumerate(parts) if part]
