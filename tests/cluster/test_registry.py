"""The registry: every node has the same copy, whatever its size, and whoever has lost entries gets them back."""

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from segmentd.cluster import registry as registry_module
from segmentd.cluster.audiences import (
    Audiences,
    audience_entry,
    deletion_entry,
    floor_entry,
    forgotten_entry,
    swept_entry,
)
from segmentd.cluster.keyspace import REGISTRY_KEYS, token_of
from segmentd.cluster.registry import NONE, ConflictError, Entry, Registry
from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS
from segmentd.http.audiences import DELETION_DIGITS_MAX
from tests.cluster.cluster import Cluster
from tests.cluster.stores import running

SALT = b"s" * 16
RARELY = 3_600.0


class Copy:
    """The copy that a node has, filled by hand: what `Audiences` asks of a registry."""

    def __init__(self) -> None:
        self.held: dict[bytes, Entry] = {}
        self.on_entry: list[object] = []

    def entries(self, prefix: bytes) -> list[Entry]:
        return [entry for field, entry in self.held.items() if field.startswith(prefix)]

    def get(self, field: bytes) -> tuple[int, bytes] | None:
        entry = self.held.get(field)
        return None if entry is None else (entry.rank, entry.payload)

    def rank(self, field: bytes) -> int:
        return self.held[field].rank if field in self.held else NONE

    def take(self, entry: Entry) -> None:
        if entry.rank > self.rank(entry.field):
            self.held[entry.field] = entry
            for told in self.on_entry:
                told(entry)  # type: ignore[operator]


IDS = ["red", "green"]
KEYS = [b"\0ann", b"\0bob"]
LIVES = st.integers(0, 3)
MARK = Gate(SALT).mark
ENTRIES = st.one_of(
    st.builds(lambda name, life: audience_entry(name, life, 2 * life), st.sampled_from(IDS), LIVES),
    st.builds(lambda name, life: deletion_entry(name, life, 2 * life + 2, life), st.sampled_from(IDS), LIVES),
    st.builds(
        lambda name, life, v: floor_entry(token_of(name, life), v), st.sampled_from(IDS), LIVES, st.integers(1, 9)
    ),
    st.builds(lambda name, life: swept_entry(token_of(name, life)), st.sampled_from(IDS), LIVES),
    st.builds(lambda key, ms: forgotten_entry(MARK(key), ms), st.sampled_from(KEYS), st.integers(1, 9)),
)


def projected(entries: list[Entry], copied: int = 0) -> dict[str, object]:
    """What a node makes of entries that come in this order, of which so many are there before it looks."""
    copy = Copy()
    for entry in entries[:copied]:
        copy.take(entry)
    known = Audiences(copy, SALT, 100)  # type: ignore[arg-type]
    for entry in entries[copied:]:
        copy.take(entry)
    admitted = {}
    for name in IDS:
        number = known.number(name)
        if number is not None:
            changes = [(key, number << V_BITS | v) for key in KEYS for v in range(20)]
            admitted[name] = {(key, word & (1 << V_BITS) - 1) for key, word in known.admitted(changes, None)}
    return {
        "ids": known.ids(),
        "tokens": {name: known.next_token(name) for name in IDS},
        "lives": {name: known.deleted_times(name) for name in IDS},
        "floors": {name: known.floor(name) for name in IDS if known.number(name) is not None},
        "admitted": admitted,
        "unswept": {known.token(n) for n, deletion in known.deletions.items() if deletion.in_index},
        "deleted": {known.token(number) for number in known.deletions},
    }


@given(
    entries=st.lists(ENTRIES, max_size=14),
    order=st.randoms(use_true_random=False),
    copied=st.integers(0, 30),
)
def test_what_a_node_makes_of_entries_does_not_depend_on_order_or_repetition(
    entries: list[Entry], order: object, copied: int
) -> None:
    shuffled = [*entries, *entries]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert projected(shuffled, copied) == projected(entries)


def test_the_floor_of_an_audience_may_be_known_before_it() -> None:
    found = projected([floor_entry(token_of("red", 0), 8), audience_entry("red", 0, 0)])
    assert found["floors"] == {"red": 8}


def test_the_number_of_a_deletion_is_one_that_can_be_asked_for() -> None:
    copy = Copy()
    known = Audiences(copy, SALT, 1_000)  # type: ignore[arg-type]
    for number in range(200):
        copy.take(deletion_entry(f"red-{number}", 0, 20, 10))
    numbers = {deletion.number for deletion in known.deletions.values()}
    assert len(numbers) == 200
    assert max(len(str(number)) for number in numbers) <= DELETION_DIGITS_MAX


def test_events_newer_than_a_deletion_come_late_for_the_deleted_one_alone() -> None:
    copy = Copy()
    known = Audiences(copy, SALT, 100)  # type: ignore[arg-type]
    copy.take(audience_entry("red", 0, 0))
    number = known.number("red")
    assert number is not None
    assert not known.came_late([(KEYS[0], number << V_BITS | 50)])
    copy.take(deletion_entry("red", 0, 20, 10))
    assert known.came_late([(KEYS[0], number << V_BITS | 19), (KEYS[0], number << V_BITS | 20)])
    assert not known.came_late([(KEYS[0], number << V_BITS | 19)])
    assert known.number("red") is None


async def test_large_registries_are_read_page_by_page_and_completely(
    fresh_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_PAGE", 600)
    async with running(fresh_cluster, tmp_path / "a") as first:
        entries = [Entry(b"z:%d" % number, number, b"payload\0:\xff") for number in range(1_700)]
        await first.registry.register(entries)
        await first.registry.register([Entry(b"z:1", 2_000, b"")])
        async with running(fresh_cluster, tmp_path / "b") as second:
            expected = {entry.field: (entry.rank, entry.payload) for entry in entries} | {b"z:1": (2_000, b"")}
            for store in (first, second):
                assert {entry.field: (entry.rank, entry.payload) for entry in store.registry.entries(b"z:")} == expected


async def test_what_one_node_unregisters_leaves_the_copy_of_every_node(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first, running(fresh_cluster, tmp_path / "b") as second:
        await first.registry.register([Entry(b"j:1", 1, b"x"), Entry(b"j:2", 1, b"x")])
        await second.registry.refresh()
        await first.registry.unregister([b"j:1"])
        await second.registry.refresh()
        assert [entry.field for entry in second.registry.entries(b"j:")] == [b"j:2"]


async def test_an_entry_that_another_node_has_changed_is_a_conflict_and_is_known_after_it(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=RARELY) as first,
        running(fresh_cluster, tmp_path / "b", registry_seconds=RARELY) as second,
    ):
        await first.registry.register([Entry(b"z:", 1, b"first", expected=NONE)])
        with pytest.raises(ConflictError):
            await second.registry.register([Entry(b"z:", 1, b"second", expected=NONE)])
        assert second.registry.get(b"z:") == (1, b"first")
        await second.registry.register([Entry(b"z:", 1, b"first", expected=NONE)])


async def test_many_who_want_it_fresh_share_one_look(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a", registry_seconds=RARELY) as store:
        looks = 0
        look = store.registry._look

        async def counted() -> None:
            nonlocal looks
            looks += 1
            await look()

        store.registry._look = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(store.registry.refresh)
        assert looks <= 2


async def test_entries_that_a_new_owner_has_lost_are_given_back_by_whoever_knows_them(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=0.05) as first,
        running(fresh_cluster, tmp_path / "b", registry_seconds=0.05) as second,
    ):
        await first.registry.register([Entry(b"z:1", 1, b"x"), Entry(b"z:2", 1, b"x")])
        await second.registry.refresh()
        version = second.registry.version
        with fresh_cluster.connection_for(REGISTRY_KEYS[0]) as connection:
            connection.call("DEL", *REGISTRY_KEYS)
        # As after an election: the owner is another one than before.
        for store in (first, second):
            store.registry._owner = "somebody else"
        await second.registry.register([Entry(b"z:3", 1, b"x")])
        assert second.registry.version > version + 1_000_000
        await first.registry.refresh()
        for registry in (first.registry, second.registry):
            assert [entry.field for entry in _sorted(registry)] == [b"z:1", b"z:2", b"z:3"]
        with fresh_cluster.connection_for(REGISTRY_KEYS[1]) as connection:
            assert connection.call("HEXISTS", REGISTRY_KEYS[1], b"z:1") == 1


def _sorted(registry: Registry) -> list[Entry]:
    return sorted(registry.entries(b"z:"))
