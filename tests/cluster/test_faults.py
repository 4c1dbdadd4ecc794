"""Each fault that a test can bring upon a cluster does what it says, with every kind of server that is here."""

import re
import signal

import pytest

from tests.cluster import dataset, views
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.engines import Engine
from tests.cluster.nodes import wait_for
from tests.cluster.resp import ReplyError
from tests.cluster.slots import SLOTS, key_slot
from tests.cluster.writers import Writer, write, writing

SLOT = key_slot("{a}")
LINK_SECONDS_MAX = 20.0
# Long enough for a local write to be acknowledged by whoever can, and waited for in vain by those tests that stall.
WAIT_MILLISECONDS = 300


@pytest.fixture
def own_cluster(make_cluster: MakeCluster, each_engine: Engine) -> Cluster:
    return make_cluster(engine=each_engine)


def keys(name: str, count: int = 100) -> list[str]:
    """Keys of one slot."""
    return [f"{{a}}{name}-{number}" for number in range(count)]


def stored(cluster: Cluster) -> set[str]:
    return {key.decode() for key in dataset.read(cluster)}


def test_a_killed_master_is_replaced_keys_survive_and_it_comes_back_as_a_replica(own_cluster: Cluster) -> None:
    written = write(own_cluster, keys("before"), copies=2)
    assert set(written.values()) == {2}
    master = own_cluster.master_of(SLOT)
    master.kill(signal.SIGKILL)
    elected = own_cluster.wait_for_failover(SLOT, master)
    after = write(own_cluster, keys("after"), copies=1)
    assert set(after.values()) == {1}
    assert stored(own_cluster) == {*written, *after}
    own_cluster.start_node(master)
    own_cluster.wait_whole()
    assert master in own_cluster.replicas_of(elected)
    assert {key.decode() for key in dataset.read_node(master)} == {*written, *after}


def test_a_frozen_master_is_replaced_and_thawed_it_follows(own_cluster: Cluster) -> None:
    written = write(own_cluster, keys("before"), copies=2)
    master = own_cluster.master_of(SLOT)
    master.freeze()
    elected = own_cluster.wait_for_failover(SLOT, master)
    after = write(own_cluster, keys("after"), copies=1)
    master.thaw()
    own_cluster.wait_whole()
    assert master in own_cluster.replicas_of(elected)
    assert stored(own_cluster) == {*written, *after}


def test_a_stalled_replica_misses_writes_and_elected_it_has_lost_them(own_cluster: Cluster) -> None:
    before = write(own_cluster, keys("before"), copies=2)
    master = own_cluster.master_of(SLOT)
    lagging, prompt = own_cluster.replicas_of(master)
    lagging.stall_replication()
    missed = write(own_cluster, keys("missed"), copies=2, milliseconds=WAIT_MILLISECONDS)
    assert set(missed.values()) == {1}, "the other replica acknowledges, the stalled one does not"
    assert {key.decode() for key in dataset.read_node(lagging)} == set(before)
    assert {key.decode() for key in dataset.read_node(prompt)} == {*before, *missed}
    master.kill()
    lagging.take_over()
    assert own_cluster.wait_for_failover(SLOT, master) is lagging
    wait_until_follows(own_cluster, prompt.node_id, lagging.node_id)
    assert stored(own_cluster) == set(before), "acknowledged by one of two, and lost by the election of the other"


def test_with_both_replicas_stalled_the_master_goes_on_alone_and_what_it_took_ends_with_it(
    own_cluster: Cluster,
) -> None:
    before = write(own_cluster, keys("before"), copies=2)
    master = own_cluster.master_of(SLOT)
    replicas = own_cluster.replicas_of(master)
    for replica in replicas:
        replica.stall_replication()
    missed = write(own_cluster, keys("missed"), copies=1, milliseconds=1_000)
    assert set(missed.values()) == {0}, "the master takes the write, and nobody acknowledges it"
    master.kill()
    for replica in replicas:
        wait_until_link_is_down(own_cluster, replica.node_id)
        replica.resume_replication()
    assert own_cluster.wait_for_failover(SLOT, master) in replicas
    assert stored(own_cluster) == set(before)


def test_what_a_stalled_replica_missed_it_gets_when_it_goes_on_and_the_master_lives(own_cluster: Cluster) -> None:
    lagging, _ = own_cluster.replicas_of(own_cluster.master_of(SLOT))
    lagging.stall_replication()
    missed = write(own_cluster, keys("missed"), copies=2, milliseconds=WAIT_MILLISECONDS)
    assert dataset.read_node(lagging) == {}
    lagging.resume_replication()
    own_cluster.wait_whole()
    assert {key.decode() for key in dataset.read_node(lagging)} == set(missed)


def test_a_frozen_replica_acknowledges_nothing_until_it_is_thawed(own_cluster: Cluster) -> None:
    frozen, other = own_cluster.replicas_of(own_cluster.master_of(SLOT))
    frozen.freeze()
    assert frozen.is_running
    assert not frozen.answers
    written = write(own_cluster, keys("frozen"), copies=2, milliseconds=WAIT_MILLISECONDS)
    assert set(written.values()) == {1}
    other.freeze()
    assert set(write(own_cluster, keys("both"), copies=1, milliseconds=WAIT_MILLISECONDS).values()) == {0}
    frozen.thaw()
    other.thaw()
    assert set(write(own_cluster, keys("thawed"), copies=2).values()) == {2}
    own_cluster.wait_whole()


def test_without_any_replica_a_master_refuses_writes(own_cluster: Cluster) -> None:
    for replica in own_cluster.replicas_of(own_cluster.master_of(SLOT)):
        replica.kill()

    def complaint() -> str | None:
        try:
            with own_cluster.connection_for("{a}") as connection:
                connection.call("SET", "{a}alone", "")
        except ReplyError as refusal:
            return None if refusal.kind == "NOREPLICAS" else str(refusal)
        return "the master still takes writes"

    wait_for(complaint, LINK_SECONDS_MAX, own_cluster.log_text)


def test_slots_that_move_under_load_lose_nothing(own_cluster: Cluster) -> None:
    before = [f"before-{number}" for number in range(4_000)]
    first, second, third = own_cluster.masters()
    for master in (first, second, third):
        slots = master.views()[master.node_id]
        with master.connection() as connection:
            connection.pipeline([("SET", key, key) for key in before if slots.owns(key_slot(key))])
    moving = range(0, SLOTS // 3, 40)
    writers = [Writer(own_cluster, f"during-{number}") for number in range(2)]
    with writing(writers):
        moved = own_cluster.move_slots(moving, second)
        moved += own_cluster.move_slots(range(SLOTS - 40, SLOTS), first)
    assert moved > len([key for key in before if key_slot(key) in moving]) > 0
    assert own_cluster.master_of(moving[-1]) is second
    assert own_cluster.master_of(SLOTS - 1) is first
    during = [key for writer in writers for key in writer.written]
    assert len([key for key in during if key_slot(key) in moving]) > 0, "the load never touched what moved"
    assert stored(own_cluster) == {*before, *during}
    own_cluster.wait_whole()


def test_the_whole_cluster_goes_and_comes_back_with_everything(own_cluster: Cluster) -> None:
    written = write(own_cluster, keys("kept"), copies=1)
    own_cluster.kill_all()
    assert own_cluster.answering == []
    with pytest.raises(LookupError):
        own_cluster.master_of(SLOT)
    own_cluster.start_all()
    own_cluster.wait_whole()
    assert stored(own_cluster) == set(written)


def test_a_setting_of_one_test_counts_without_an_append_only_file_nothing_comes_back(
    make_cluster: MakeCluster, each_engine: Engine
) -> None:
    cluster = make_cluster(1, 1, {"appendonly": "no"}, engine=each_engine)
    assert set(write(cluster, keys("forgotten"), copies=1).values()) == {1}
    cluster.kill_all()
    cluster.start_all()
    cluster.wait_whole()
    assert stored(cluster) == set()


def test_what_waits_in_the_kernel_for_a_frozen_replica_outlives_its_master(own_cluster: Cluster) -> None:
    """So freezing shows a slow replica, and not a loss: that takes `stall_replication`."""
    master = own_cluster.master_of(SLOT)
    replicas = own_cluster.replicas_of(master)
    for replica in replicas:
        replica.freeze()
    sent = write(own_cluster, keys("sent"), copies=1, milliseconds=WAIT_MILLISECONDS)
    assert set(sent.values()) == {0}
    master.kill()
    for replica in replicas:
        replica.thaw()
    assert own_cluster.wait_for_failover(SLOT, master) in replicas
    assert stored(own_cluster) == set(sent)


def test_a_cluster_is_not_whole_while_a_server_is_away_frozen_or_behind(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, 1)
    (master,) = cluster.masters()
    (replica,) = cluster.replicas_of(master)

    def why_not_whole() -> str:
        return views.why_not_whole(cluster.nodes, cluster.replicas_each) or "whole"

    replica.stall_replication()
    write(cluster, keys("missed"), copies=0)
    assert re.search(r"is at \d+ of \d+, its link up", why_not_whole())
    replica.resume_replication()
    cluster.wait_whole()
    replica.freeze()
    assert "frozen" in why_not_whole()
    replica.thaw()
    cluster.wait_whole()
    replica.kill()
    assert "does not run" in why_not_whole()
    cluster.start_node(replica)
    cluster.wait_whole()
    assert why_not_whole() == "whole"


def wait_until_follows(cluster: Cluster, replica_id: str, master_id: str) -> None:
    (replica,) = (node for node in cluster.nodes if node.node_id == replica_id)
    wait_for(
        lambda: None if replica.views()[replica_id].master_id == master_id else f"{replica} does not follow",
        LINK_SECONDS_MAX,
        cluster.log_text,
    )


def wait_until_link_is_down(cluster: Cluster, replica_id: str) -> None:
    (replica,) = (node for node in cluster.nodes if node.node_id == replica_id)
    wait_for(
        lambda: None if replica.info("replication")["master_link_status"] == "down" else f"{replica} has its link",
        LINK_SECONDS_MAX,
        cluster.log_text,
    )
