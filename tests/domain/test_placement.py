"""Where keys go: the same place for ever, and evenly."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.placement import TABLE_OF_SLOT, TABLES_PER_SHARD, shard_of, split, table_of

FORMS: list[Callable[[int], bytes]] = [
    lambda number: b"\0u-%d" % number,
    lambda number: b"\1user%08d@mail.example" % number,
    lambda number: b"\0%08x-0000-4000-8000-%012x" % (number * 2_654_435_761 % 2**32, number),
]


@pytest.mark.parametrize(
    ("key", "shard", "table"),
    [
        (b"123456789", 2, 216),  # CRC-32 gives its published check value, 0xCBF43926
        (b"\0u-1", 7, 3),
        (b"\0u-17", 3, 223),
        (b"\1ada@mail.example", 0, 25),
        (b"\0" + "ü".encode(), 3, 230),
    ],
)
def test_the_place_of_a_key_is_the_same_in_every_version(key: bytes, shard: int, table: int) -> None:
    assert (shard_of(key, 8), table_of(key)) == (shard, table)


@pytest.mark.parametrize("form", FORMS, ids=["short", "email", "uuid"])
@pytest.mark.parametrize("shards", [1, 3, 8, 256])
def test_keys_are_spread_evenly_over_shards_and_their_tables(form: Callable[[int], bytes], shards: int) -> None:
    keys = [form(number) for number in range(50_000)]
    places = Counter((shard_of(key, shards), table_of(key)) for key in keys)
    by_shard = Counter(shard_of(key, shards) for key in keys)
    assert len(by_shard) == shards
    assert max(by_shard.values()) < 1.5 * len(keys) / shards
    # The table must not follow from the shard, or most tables would stay empty. Chance leaves e^(-keys/tables) empty.
    tables = shards * TABLES_PER_SHARD
    assert len(places) > 0.9 * tables * (1 - math.exp(-len(keys) / tables))


def test_tables_are_unequally_full_so_that_they_do_not_grow_in_the_same_moment() -> None:
    shares = Counter(TABLE_OF_SLOT)
    sizes = [shares[table] for table in range(TABLES_PER_SHARD)]
    assert sum(sizes) == len(TABLE_OF_SLOT)
    assert 1.9 < sizes[-1] / sizes[0] < 2.1
    # Rising but for the rounding to whole slots.
    assert all(after >= before - 1 for before, after in pairwise(sizes))


@given(st.lists(st.tuples(st.binary(min_size=1), st.integers())), st.integers(1, 9))
def test_splitting_gives_every_change_to_its_shard_in_order(changes: list[tuple[bytes, int]], shards: int) -> None:
    parts = dict(split(changes, shards))
    for number in range(shards):
        assert parts.get(number, []) == [change for change in changes if shard_of(change[0], shards) == number]
    assert all(parts.values())
