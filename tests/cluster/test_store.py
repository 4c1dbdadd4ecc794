"""What nodes owe to each other over one cluster, in the moments between those at which the model looks."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from segmentd.cluster.audiences import SWEPT, deletion_entry
from segmentd.cluster.catalog import ClusterCatalog
from segmentd.cluster.keyspace import REGISTRY_KEYS
from segmentd.cluster.registry import ConflictError, Entry
from segmentd.cluster.store import ClusterStore
from segmentd.domain.refusals import LimitReached, Overloaded, RevisionMismatch, StoreUnavailable
from segmentd.domain.segments import SegmentDefinition
from segmentd.runtime.audiences import Deletion
from tests.cluster.cluster import Cluster
from tests.cluster.stores import PARTITIONS, counts, page, running, size

ADA, BOB = b"\0ada", b"\0bob"
RARELY = 3_600.0
"""Seconds between two looks at the registry that nobody has asked for: never within a test."""


async def settled(store: ClusterStore) -> None:
    while any(not deletion.is_complete for deletion in store.audiences.deletions.values()):  # noqa: ASYNC110
        await trio.sleep(0.02)


async def test_an_event_after_a_deletion_on_another_node_is_for_the_next_audience(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=RARELY) as first,
        running(fresh_cluster, tmp_path / "b", registry_seconds=RARELY) as second,
    ):
        await second.apply([(ADA, "red", 4), (BOB, "red", 4)])
        assert await first.delete_audience("red", 10) is not None
        await second.apply([(ADA, "red", 18), (BOB, "red", 22)])
        for store in (second, first):
            assert await store.memberships_of(BOB) == {"red": 22}
            assert await store.memberships_of(ADA) == {}, "what is older than the deletion is void"
            assert await size(store, "red") == 1


async def test_an_audience_that_came_and_went_on_another_node_is_heard_of_anew(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=RARELY) as first,
        running(fresh_cluster, tmp_path / "b", registry_seconds=RARELY) as second,
    ):
        for ts in (10, 20, 30):
            await first.apply([(ADA, "red", 2 * ts)])
            assert await first.delete_audience("red", ts + 1) is not None
        await second.apply([(ADA, "red", 2 * 40)])
        assert await first.memberships_of(ADA) == {"red": 80}
        await settled(first)
        assert await counts(first) == (1, 1)


async def test_what_lives_of_an_audience_have_left_is_swept_up_by_whoever_starts_later(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first:
        # As if every node had died before anything was swept up.
        first.removal.wake = lambda: None  # type: ignore[method-assign]
        for ts in (10, 20):
            await first.apply([(ADA, "red", 2 * ts), (BOB, "red", 2 * ts + 1)])
            await first.registry.register([_deleted(first, "red", ts)])
            await first.registry.fence(first.connected.keyspace)
        await first.apply([(ADA, "red", 60)])
    with fresh_cluster.connection_for(REGISTRY_KEYS[1]) as connection:
        fields = connection.call("HKEYS", REGISTRY_KEYS[1])
        assert isinstance(fields, list)
        swept = [bytes(field) for field in fields if bytes(field).startswith(SWEPT)]  # type: ignore[arg-type]
        if swept:
            connection.call("HDEL", REGISTRY_KEYS[1], *swept)
            connection.call("ZREM", REGISTRY_KEYS[2], *swept)
    async with running(fresh_cluster, tmp_path / "b") as second:
        await settled(second)
        assert len(second.audiences.deletions) == 2
        assert await counts(second) == (1, 1)
        assert await second.memberships_of(ADA) == {"red": 60}


def _deleted(store: ClusterStore, audience: str, now_ms: int) -> Entry:
    return deletion_entry(audience, store.audiences.deleted_times(audience), 2 * now_ms, now_ms)


async def test_of_two_nodes_that_delete_one_audience_one_has_done_it(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first, running(fresh_cluster, tmp_path / "b") as second:
        for number in range(5):
            audience = f"red-{number}"
            await first.apply([(ADA, audience, 4)])
            done: list[Deletion | None] = []

            async def delete(store: ClusterStore, now_ms: int, of: str = audience, to: list = done) -> None:  # type: ignore[type-arg]
                to.append(await store.delete_audience(of, now_ms))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(delete, first, 10)
                nursery.start_soon(delete, second, 20)
            (deletion,) = [found for found in done if found is not None]
            assert await second.deletion(deletion.number) is not None
            assert await first.memberships_of(ADA) == {}


async def test_a_node_whose_setting_is_another_takes_the_partitions_that_the_cluster_has(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a"):
        pass
    async with running(fresh_cluster, tmp_path / "b", partitions=PARTITIONS + 7) as store:
        assert store.connected.keyspace.partitions == PARTITIONS
        await store.apply([(b"\0%d" % number, "red", 2) for number in range(50)])
        assert await size(store, "red") == 50


async def test_audiences_that_come_up_at_the_same_time_are_not_more_than_allowed(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a", limits={"audiences_max": 5}) as store:
        refused = taken = 0

        async def apply(number: int) -> None:
            nonlocal refused, taken
            try:
                await store.apply([(ADA, f"red-{number}", 2)])
                taken += 1
            except LimitReached:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(apply, number)
        assert (taken, refused, len(store.audiences)) == (5, 15, 5)


async def test_while_audiences_cannot_be_registered_few_requests_wait_for_it_and_not_for_long(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    settings = {"commit_queue_requests_max": 3, "retry_after_seconds": 7}
    async with running(fresh_cluster, tmp_path / "a", runtime=settings, acknowledge_seconds_max=1) as store:
        await store.apply([(ADA, "known", 2)])
        # Nobody answers for the registry any more.
        async with store.registry._turn:
            replies = [store.submit([(ADA, f"red-{number}", 2)]) for number in range(3)]
            with pytest.raises(Overloaded, match="wait for their audiences"):
                store.submit([(ADA, "red", 2)])
            await store.apply([(ADA, "known", 4)])
            for reply in replies:
                with pytest.raises(StoreUnavailable, match="could not be registered in time"):
                    await reply.wait()
        await store.apply([(ADA, "red", 2)])
        assert await store.memberships_of(ADA) == {"known": 4, "red": 2}


async def test_what_is_forgotten_does_not_come_back_from_the_outbox_of_another_node(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first:
        async with running(fresh_cluster, tmp_path / "b") as second:
            await second.apply([(ADA, "red", 4), (BOB, "red", 4), (ADA, "green", 4)])
        await first.forget([ADA], 10)
        assert await first.delete_audience("green", 10) is not None
        async with running(fresh_cluster, tmp_path / "b") as second:
            assert second.recovery.recovered == 3, "it has sent its outbox again"
            await settled(first)
            for store in (first, second):
                assert await store.memberships_of(ADA) == {}
                assert await counts(store) == (1, 1)


async def test_a_removal_that_another_node_has_overtaken_goes_on_with_what_is_known_by_then(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with (
        running(fresh_cluster, tmp_path / "a", registry_seconds=RARELY, acknowledge_seconds_max=2) as first,
        running(fresh_cluster, tmp_path / "b") as second,
    ):
        await first.apply([(ADA, "red", 4)])
        assert await second.delete_audience("red", 1) is not None
        await settled(second)
        await second.apply([(ADA, "red", 4)])
        # Between a look and the removal the registry may become newer than what the node knows.
        await first.removal.forget([ADA])
        assert await counts(second) == (0, 0)


async def test_a_node_that_starts_gives_the_cluster_what_it_has_lost(fresh_cluster: Cluster, tmp_path: Path) -> None:
    changes = [(b"\0%d" % number, "red", 2) for number in range(100)]
    async with running(fresh_cluster, tmp_path / "a") as store:
        await store.apply(changes)
    fresh_cluster.flush()
    async with running(fresh_cluster, tmp_path / "a") as store:
        assert await size(store, "red") == len(changes)
        assert await counts(store) == (len(changes), len(changes))


async def test_connections_that_are_cut_and_functions_that_are_gone_lose_nothing(
    fresh_cluster: Cluster, tmp_path: Path
) -> None:
    async with running(fresh_cluster, tmp_path / "a") as store:
        done = 0

        async def write(writer: int) -> None:
            nonlocal done
            for number in range(40):
                await store.apply([(b"\0%d-%d" % (writer, number), "red", 2)])
                done += 1

        async with trio.open_nursery() as nursery:
            for writer in range(8):
                nursery.start_soon(write, writer)
            while done < 200:
                for master in fresh_cluster.masters():
                    await trio.to_thread.run_sync(master.call, "FUNCTION", "FLUSH", "SYNC")
                    await trio.to_thread.run_sync(master.call, "CLIENT", "KILL", "TYPE", "normal")
                await trio.sleep(0.2)
        assert await size(store, "red") == 320
        assert await counts(store) == (320, 320)
        assert (store.writes.waiting, store.writes._on_the_way) == (0, 0)
        links = store.connected.servers._links
        assert len(links) <= 4 * len(fresh_cluster.nodes)


async def test_errors_that_nobody_expects_are_refusals_and_pass(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a", acknowledge_seconds_max=1) as store:
        await store.apply([(ADA, "red", 2)])
        user = store.connected.keyspace.user(BOB)
        with fresh_cluster.connection_for(user) as connection:
            connection.call("SET", user, "no hash")
            with pytest.raises(StoreUnavailable, match="wrong kind of value"):
                await store.apply([(BOB, "red", 2)])
            with pytest.raises(StoreUnavailable):
                await store.memberships_of(BOB)
            connection.call("DEL", user)
        await store.apply([(BOB, "red", 2)])
        assert await size(store, "red") == 2


async def test_identifiers_of_any_bytes_are_what_they_are(fresh_cluster: Cluster, tmp_path: Path) -> None:
    keys = [
        bytes([kind]) + value for kind in (0, 1, 9) for value in (b"}", b"{", b"\r\n", bytes(range(256)), b"x" * 512)
    ]
    async with running(fresh_cluster, tmp_path / "a") as store:
        await store.apply([(key, "red{}\r\n\u00e9", 2) for key in keys])
        assert sorted(key for key, _ in (await page(store, "red{}\r\n\u00e9")).members) == sorted(keys)
        assert await store.memberships_of(keys[3]) == {"red{}\r\n\u00e9": 2}
        await store.forget(keys, 5)
        assert await counts(store) == (0, 0)


async def test_pages_go_round_all_members_once(fresh_cluster: Cluster, tmp_path: Path) -> None:
    keys = {b"\0%d" % number for number in range(137)}
    async with running(fresh_cluster, tmp_path / "a") as store:
        await store.apply([(key, "red", 2) for key in keys] + [(b"\0out", "red", 3)])
        for first in (1, 10, 137, 500):
            seen: list[bytes] = []
            after = b""
            while True:
                shown = await page(store, "red", after, first)
                assert shown.total == len(keys)
                seen += [key for key, _ in shown.members]
                if not shown.has_more:
                    break
                after = seen[-1]
            assert (len(seen), set(seen)) == (len(keys), keys)


async def test_a_segment_has_one_writer_at_a_time_whatever_the_node(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first, running(fresh_cluster, tmp_path / "b") as second:
        catalogs = [ClusterCatalog(store, segments_max=10, retry_after_seconds=1) for store in (first, second)]
        await catalogs[0].put("s", SegmentDefinition("red"), None)
        won: list[int] = []

        async def put(number: int) -> None:
            with suppress(RevisionMismatch):
                segment, _ = await catalogs[number % 2].put("s", SegmentDefinition(f"red-{number}"), 1)
                won.append(segment.revision)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(put, number)
        assert won == [2]
        assert await catalogs[1].delete("s", 2) == []
        assert (await catalogs[0].put("s", SegmentDefinition("red"), None))[0].revision == 3


async def test_nodes_that_name_identifiers_at_the_same_time_agree(fresh_cluster: Cluster, tmp_path: Path) -> None:
    async with running(fresh_cluster, tmp_path / "a") as first, running(fresh_cluster, tmp_path / "b") as second:
        found: list[dict[str, int]] = []

        async def name(store: ClusterStore, names: list[str]) -> None:
            found.append(await store.connected.kind_numbers(names))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(name, first, ["x", "y"])
            nursery.start_soon(name, second, ["y", "z"])
        assert found[0]["y"] == found[1]["y"]
        assert len({**found[0], **found[1]}.values()) == 3
        with pytest.raises(ConflictError):
            await first.registry.register([Entry(b"kinds", 99, b"", expected=-1)])
