"""Nodes of segmentd end, alone or with the cluster: what they acknowledged is there, and they come back."""

from tests.cluster.cluster import Cluster
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import SegmentdNode, Watcher, tell
from tests.cluster.failures.test_servers import REGISTRY_SLOT, STEADY, loaded, look_everywhere
from tests.cluster.ledger import NOTHING_WRONG


def given_back(node: SegmentdNode) -> int:
    """Changes that it has sent again in all its lives, as it says."""
    lines = node.lines_of("info", "an owner is up to date")
    return sum(int(line.partition("changes=")[2].split()[0]) for line in lines)


def test_a_node_that_is_killed_under_load_costs_nothing_and_gives_back_its_outbox_when_it_starts(serve: Serve) -> None:
    service = serve(2)
    first = service.nodes[0]
    load = loaded(service, "node")
    with load.sending(), Watcher(service.urls[1], load.audiences[0]).watching() as watcher:
        load.wait_for_acknowledgements(STEADY)
        first.kill()
        load.wait_for_acknowledgements(STEADY)
        first.start()
        assert given_back(first) > 0
        load.wait_for_acknowledgements(STEADY)
    tell("a node killed", seconds_without_acknowledgement=load.counts.gap_seconds_max, broken=load.counts.broken)
    assert load.counts.broken > 0
    assert (load.counts.refusals, watcher.refused) == (0, 0), "the other node serves on as ever"
    look_everywhere(load)


def test_everything_killed_at_once_comes_back_with_everything(whole: Cluster, serve: Serve) -> None:
    service = serve(2)
    load = loaded(service, "all")
    with load.sending():
        load.wait_for_acknowledgements(STEADY)
        whole.kill_all()
        for node in service.nodes:
            node.kill()
        whole.start_all()
        for node in service.nodes:
            node.start()
        load.wait_for_acknowledgements(STEADY)
    tell("everything killed", seconds_without_acknowledgement=load.counts.gap_seconds_max)
    look_everywhere(load)


def test_sigterm_lets_a_node_finish_what_it_took_and_refuse_the_rest(whole: Cluster, serve: Serve) -> None:
    service = serve(2)
    load = loaded(service, "drained")
    with load.sending():
        load.wait_for_acknowledgements(STEADY)
        service.nodes[0].terminate()
        load.wait_for_acknowledgements(STEADY)
        # Also while a master is away, and what was taken waits for the next one.
        master = whole.master_of(REGISTRY_SLOT)
        master.freeze()
        service.nodes[1].terminate()
        master.thaw()
        service.nodes[0].start()
        load.wait_for_acknowledgements(STEADY)
    for node in service.nodes:
        assert node.lines_of("info", "stopped")
    assert load.look() == NOTHING_WRONG
