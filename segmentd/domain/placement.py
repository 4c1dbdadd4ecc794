"""Which shard owns a key.

CRC-32 is stable across processes, versions and machines (Python's `hash` is not), evenly spread, and one C call.
The low bits choose the shard, the next ones the table inside it, so that the two choices are independent.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar
from zlib import crc32

TABLE_BITS: Final = 4
TABLES_PER_SHARD: Final = 1 << TABLE_BITS

Keyed = TypeVar("Keyed", bound=tuple[bytes, Any])


def shard_of(key: bytes, shards: int) -> int:
    """Number of the shard, 0..shards-1."""
    return (crc32(key) >> TABLE_BITS) % shards


def table_of(key: bytes) -> int:
    """Number of the table inside its shard, 0..TABLES_PER_SHARD-1."""
    return crc32(key) & (TABLES_PER_SHARD - 1)


def split(changes: Iterable[Keyed], shards: int) -> list[tuple[int, list[Keyed]]]:
    """(shard number, its changes in order) for each shard that has any; places as `shard_of` does, without its call."""
    parts: list[list[Keyed]] = [[] for _ in range(shards)]
    for change in changes:
        parts[(crc32(change[0]) >> TABLE_BITS) % shards].append(change)
    return [(number, part) for number, part in enumerate(parts) if part]
