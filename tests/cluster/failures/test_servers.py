"""Servers of the cluster are killed or frozen under load, and moved slots: nothing acknowledged is lost."""

from tests.cluster.cluster import Cluster
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import Service, Watcher, first_slots, put_segment, tell
from tests.cluster.ledger import NOTHING_WRONG
from tests.cluster.load import Load, Shape
from tests.cluster.slots import key_slot

SHAPE = Shape(clients=3, events=10, pause_seconds=0.03)
STEADY = 200
"""Events that show that it goes on."""
REGISTRY_SLOT = key_slot("{registry}")


def loaded(service: Service, name: str) -> Load:
    """A load that has its segments, at every node: others need a moment to hear of one."""
    load = Load(service.urls, name=name, shape=SHAPE)
    load.create_segments()
    for url in load.urls[1:]:
        for audience in load.audiences:
            put_segment(url, audience)
    return load


def look_everywhere(load: Load) -> None:
    for url in load.urls:
        assert load.look(url) == NOTHING_WRONG


def test_a_master_that_is_killed_under_load_loses_nothing_and_writing_goes_on_after_the_failover(
    whole: Cluster, serve: Serve
) -> None:
    service = serve(2)
    load = loaded(service, "killed")
    master = whole.master_of(REGISTRY_SLOT)
    with load.sending(), Watcher(service.urls[0], load.audiences[0]).watching() as watcher:
        load.wait_for_acknowledgements(STEADY)
        master.kill()
        whole.wait_for_failover(REGISTRY_SLOT, master)
        load.wait_for_acknowledgements(STEADY)
        whole.start_node(master)
        load.wait_for_acknowledgements(STEADY)
    told(load, watcher, "a master killed")
    assert not watcher.unhealthy
    look_everywhere(load)


def test_a_master_that_is_frozen_under_load_and_thawed_loses_nothing(whole: Cluster, serve: Serve) -> None:
    service = serve(2)
    load = loaded(service, "frozen")
    master = whole.master_of(REGISTRY_SLOT)
    with load.sending(), Watcher(service.urls[1], load.audiences[0]).watching() as watcher:
        load.wait_for_acknowledgements(STEADY)
        master.freeze()
        whole.wait_for_failover(REGISTRY_SLOT, master)
        load.wait_for_acknowledgements(STEADY)
        master.thaw()
        load.wait_for_acknowledgements(2 * STEADY)
    told(load, watcher, "a master frozen")
    assert not watcher.unhealthy
    look_everywhere(load)


def test_slots_that_move_under_load_to_and_fro_lose_nothing_and_clients_see_no_error(
    whole: Cluster, serve: Serve
) -> None:
    service = serve(2)
    load = loaded(service, "moved")
    with load.sending():
        load.wait_for_acknowledgements(STEADY)
        moving = first_slots(whole, 5)
        home, *others = whole.masters()
        moved = 0
        for target in (others[0], others[1], home):
            moved += whole.move_slots(moving, target)
            load.wait_for_acknowledgements(STEADY)
    tell("slots moved", slots=3 * len(moving), keys=moved, refusals=load.counts.refusals)
    assert moved > 0
    assert (load.counts.refusals, load.counts.broken) == (0, 0)
    look_everywhere(load)


def told(load: Load, watcher: Watcher, what: str) -> None:
    tell(
        what,
        acknowledged=load.counts.acknowledged,
        refusals=load.counts.refusals,
        seconds_without_acknowledgement=load.counts.gap_seconds_max,
        seconds_without_query=watcher.gap_seconds_max,
    )
