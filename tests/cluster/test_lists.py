"""Whole lists into a cluster: the importer's promises, kept over two nodes, kills and deletions elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentd.cluster.lists import ClusterLists, patiently
from segmentd.cluster.store import ClusterStore
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import LimitReached, Overloaded
from segmentd.runtime.imports import Imports
from segmentd.runtime.liststore import AudienceGoneError, Compared, WholeList
from segmentd.storage.importscan import swept_key
from tests.cluster.cluster import Cluster
from tests.cluster.stores import members_of, running, size
from tests.imports.test_model import EVENT, KILL, KIND, LIST, PEOPLE, SCHEMA, send, settings_of

MANY = 3_000
"""Members, more than are read at once of each partition."""


def lists_of(store: ClusterStore) -> ClusterLists:
    return ClusterLists(store, members_of(store))


@asynccontextmanager
async def importing(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[ClusterStore, Imports]]:
    """A node with its imports; cancelled at the end, as a kill would, at whatever point they are."""
    async with running(cluster, folder / "store") as store:
        imports = Imports(settings_of(folder), SCHEMA, lists_of(store))
        await imports.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(imports.run)
            yield store, imports
            nursery.cancel_scope.cancel()


async def members(store: ClusterStore) -> set[str]:
    found = await store.reads.listed([SCHEMA.key(KIND, person) for person in PEOPLE], "a")
    qualified = {person for person, v in zip(PEOPLE, found, strict=True) if v is not None and not v & 1}
    assert await size(store, "a") == len(qualified)
    return qualified


@given(steps=st.lists(st.one_of(EVENT, EVENT, EVENT, LIST, KILL), max_size=10))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_state_is_a_function_of_the_set_of_events_and_lists(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | set[str], int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    cluster.wait_whole()
    cluster.flush()
    decisions: dict[str, int] = {}

    def note(person: str, v: int) -> None:
        decisions[person] = max(v, decisions.get(person, -1))

    async def life(steps: list[tuple[str, str | set[str], int, bool]]) -> int:
        """Until a kill or the end; events go through another node than lists."""
        async with importing(cluster, folder / "a") as (store, imports), running(cluster, folder / "b") as other:
            for taken, (kind, who, ts, flag) in enumerate(steps, start=1):
                if kind == "kill":
                    await trio.sleep(ts / 1000)
                    return taken
                if isinstance(who, str):
                    await other.apply([(SCHEMA.key(KIND, who), "a", v_of(ts, flag))])
                    note(who, v_of(ts, flag))
                    continue
                job = await send(imports, sorted(who), ts)
                for person in PEOPLE:
                    note(person, 2 * ts if person in who else 2 * ts - 1)
                if flag:
                    await imports.jobs.ended(job)
            await imports.jobs.settled()
            expected = {person for person, v in decisions.items() if v >= 0 and not v & 1}
            assert await members(other) == await members(store) == expected
            return len(steps)

    first = True
    while steps or first:
        first = False
        steps = steps[trio.run(life, steps) :]
    trio.run(life, [])


def _list(folder: Path, number: int | None, values: list[bytes], as_of_ms: int = 10) -> WholeList:
    staged = folder / "staged"
    staged.write_bytes(b"".join(value + b"\n" for value in sorted(values)))
    return WholeList("a", number, as_of_ms, 1_000, 0, staged)


async def test_comparing_finds_exactly_who_is_outdated(fresh_cluster: Cluster, tmp_path: Path) -> None:
    values = [b"%d" % number for number in range(MANY)]
    async with running(fresh_cluster, tmp_path / "a", partitions=2) as store:
        lists = lists_of(store)
        number = await lists.numbered("a")
        await store.apply([(b"\0" + value, "a", 2) for value in values])
        await store.apply([(b"\1other", "a", 2), (b"\0late", "a", 40), (b"\0out", "a", 3)])
        listed = _list(tmp_path, number, [*values[::3], b"nobody", b"zz"])
        output = tmp_path / "outdated"
        expected = {b"\0" + value for value in values} - {b"\0" + value for value in values[::3]} | {b"\1other"}
        assert await lists.compare(listed, None) == Compared(MANY + 2, len(expected))
        assert await lists.compare(listed, output) == Compared(MANY + 2, len(expected))
        found = [swept_key(line) for line in output.read_bytes().splitlines(keepends=True)]
        assert found == sorted(expected)


async def test_a_long_list_lets_others_run_while_it_is_compared(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as store:
        lists = lists_of(store)
        number = await lists.numbered("a")
        await store.apply([(b"\0zzz", "a", 2)])
        listed = _list(tmp_path, number, [b"%d" % value for value in range(100_000)])
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            before = turns
            assert await lists.compare(listed, None) == Compared(1, 1)
            assert turns - before > 100
            nursery.cancel_scope.cancel()


async def test_an_audience_that_another_node_deletes_is_gone_for_a_list_on_its_way(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a") as store, running(fresh_cluster, tmp_path / "b") as other:
        lists = lists_of(store)
        listed = _list(tmp_path, await lists.numbered("a"), [b"ann"])
        assert await lists.qualify(listed, [b"\0ann"], dry_run=False) == 1
        assert await other.delete_audience("a", 5) is not None
        with pytest.raises(AudienceGoneError):
            await lists.qualify(listed, [b"\0ann"], dry_run=False)
        await other.apply([(b"\0bob", "a", 40)])
        with pytest.raises(AudienceGoneError):
            await lists.disqualify(listed, [b"\0bob"])
        assert await store.memberships_of(b"\0bob") == {"a": 40}
        assert await store.memberships_of(b"\0ann") == {}


async def test_a_dry_run_brings_nothing_into_being(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as store:
        lists = lists_of(store)
        assert await lists.qualify(_list(tmp_path, None, [b"ann"]), [b"\0ann"], dry_run=True) == 1
        listed = _list(tmp_path, await lists.numbered("a"), [b"ann"])
        assert await lists.qualify(listed, [b"\0ann"], dry_run=True) == 1
        assert await store.memberships_of(b"\0ann") == {}
        assert await lists.qualify(listed, [b"\0ann"], dry_run=False) == 1
        assert await lists.qualify(listed, [b"\0ann"], dry_run=False) == 0


async def test_whoever_was_forgotten_after_a_list_was_taken_is_left_alone(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a") as store:
        lists = lists_of(store)
        listed = _list(tmp_path, await lists.numbered("a"), [b"ann", b"bob"], as_of_ms=5_000)
        await store.forget([b"\0ann"], listed.taken_ms)
        await lists.qualify(listed, [b"\0ann", b"\0bob"], dry_run=False)
        assert await store.reads.listed([b"\0ann", b"\0bob"], "a") == [None, 10_000]


async def test_a_floor_holds_on_every_node_at_once(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=3_600) as store,
        running(fresh_cluster, tmp_path / "b", registry_seconds=3_600) as other,
    ):
        await other.apply([(b"\0ann", "a", 2)])
        lists = lists_of(store)
        number = await lists.numbered("a")
        await lists.raise_floor(number, 10)
        await other.apply([(b"\0bob", "a", 18), (b"\0cyd", "a", 20), (b"\0ann", "a", 19)])
        assert await store.reads.listed([b"\0ann", b"\0bob", b"\0cyd"], "a") == [19, None, 20]
        assert await lists_of(other).floor("a") == 20


async def test_patience_is_for_what_time_can_heal() -> None:
    tries = 0

    async def act() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Overloaded("busy", 1)
        raise LimitReached("x", "too many", "audiences_max", 1)

    with pytest.raises(LimitReached):
        await patiently(act)
    assert tries == 3
