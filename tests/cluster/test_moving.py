"""Slots that move while they are read and written: nothing is lost, nothing seems to be missing, other slots go on."""

from pathlib import Path

import trio

from tests.cluster import slots
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.nodes import Node
from tests.cluster.stores import counts, running, size

KEYS = [b"\0%d" % number for number in range(200)]
HALF = 100


class HalfMoved:
    """A slot of which some keys have moved, and which still belongs to whom they leave."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self.slot = slot
        self.source = cluster.master_of(slot)
        self.target = next(node for node in cluster.masters() if node is not self.source)

    def begin(self, keys: list[bytes]) -> None:
        """Let the slot move, with these of its keys."""
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.node_id)
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.node_id)
        self.move(keys)

    def move(self, keys: list[bytes]) -> None:
        if keys:
            host, _, port = self.target.address.rpartition(":")
            self.source.call("MIGRATE", host, port, "", 0, 5_000, "KEYS", *keys)

    def held(self) -> list[bytes]:
        """Keys that have not moved."""
        found = self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, 100_000)
        assert isinstance(found, list)
        return [bytes(key) for key in found]  # type: ignore[arg-type]

    def end(self, masters: list[Node]) -> None:
        self.move(self.held())
        for node in (self.target, self.source, *masters):
            node.call("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.node_id)


async def test_a_slot_of_which_half_has_moved_shows_both_halves_and_holds_up_no_other(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await trio.to_thread.run_sync(make_cluster)
    async with running(cluster, tmp_path / "a", acknowledge_seconds_max=3) as store:
        await store.apply([(key, "red", 4) for key in KEYS])
        space = store.connected.keyspace
        moving = HalfMoved(cluster, space.slots[0])
        theirs = [key for key in KEYS if space.partition_of(key) == 0]
        users = [space.user(key) for key in theirs[: len(theirs) // 2]]
        # The mark of the partition too, which each batch ends in.
        moving.begin([*users, space.mark(moving.slot)])
        for key in theirs:
            assert await store.memberships_of(key) == {"red": 4}
        assert await store.reads.listed(theirs, "red") == [4] * len(theirs)
        assert await size(store, "red") == len(KEYS)
        others = [key for key in KEYS if space.partition_of(key) != 0]
        async with trio.open_nursery() as nursery:
            # These wait for the move, at the head of the same owner's batches, and end with it.
            nursery.start_soon(store.apply, [(key, "red", 6) for key in theirs])
            for _ in range(5):
                await store.apply([(key, "red", 6) for key in others])
            moving.end(cluster.masters())
        assert await store.reads.listed(KEYS, "red") == [6] * len(KEYS)
        assert await counts(store) == (len(KEYS), len(KEYS))


async def test_a_partition_that_moves_under_load_loses_nothing(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await trio.to_thread.run_sync(make_cluster)
    async with running(cluster, tmp_path / "a") as store, running(cluster, tmp_path / "b") as other:
        space = store.connected.keyspace
        told: dict[bytes, int] = {}
        is_moved = False

        async def write(writer: int) -> None:
            number = 0
            while not is_moved:
                key, v = b"\0%d-%d" % (writer, number % HALF), 2 * number + 2
                node = (store, other)[number % 2]
                await node.apply([(key, "red", v)])
                told[key] = v
                assert (await (other, store)[number % 2].memberships_of(key))["red"] >= v
                number += 1

        async with trio.open_nursery() as nursery:
            for writer in range(4):
                nursery.start_soon(write, writer)
            await trio.sleep(0.3)
            target = cluster.master_of(space.slots[-1])
            await trio.to_thread.run_sync(cluster.move_slots, space.slots[:2], target)
            await trio.sleep(0.3)
            is_moved = True
        for node in (store, other):
            assert await node.reads.listed(list(told), "red") == list(told.values())
            assert await size(node, "red") == len(told)
            assert node.connected.servers.owner_of(space.slots[0]).address.port == target.port  # type: ignore[union-attr]
    assert slots.key_slot(space.mark(space.slots[0])) == space.slots[0]
