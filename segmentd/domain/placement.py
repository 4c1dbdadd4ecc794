"""Which shard owns a key.

CRC-32 is stable across processes, versions and machines (Python's `hash` is not), evenly spread, and one C call.
The low bits choose the shard, the next ones the table inside it, so that the two choices are independent.
"""

from typing import Final
from zlib import crc32

TABLE_BITS: Final = 4
TABLES_PER_SHARD: Final = 1 << TABLE_BITS


def shard_of(key: bytes, shards: int) -> int:
    """Number of the shard, 0..shards-1."""
    return (crc32(key) >> TABLE_BITS) % shards


def table_of(key: bytes) -> int:
    """Number of the table inside its shard, 0..TABLES_PER_SHARD-1."""
    return crc32(key) & (TABLES_PER_SHARD - 1)
