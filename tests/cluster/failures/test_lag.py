"""A replica that lags becomes the master: what it lacks was acknowledged, and the outboxes give it back.

In all of them replication is stalled at one replica (or at both), the master is lost for good and that replica takes
over, so that the cluster alone has lost whatever was acknowledged meanwhile.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.cluster import Cluster
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import tell
from tests.cluster.failures.test_servers import REGISTRY_SLOT, SHAPE, STEADY, loaded, look_everywhere
from tests.cluster.ledger import NOTHING_WRONG
from tests.cluster.load import Load
from tests.cluster.nodes import Node

IMPATIENT = {"acknowledge_seconds_max": 2.0}
"""So that what cannot be acknowledged is refused soon."""

EVERY_COPY = {"replicas_acknowledged_min": 2, **IMPATIENT}


def wait_for_refusals(load: Load, count: int) -> None:
    goal, deadline = load.counts.refusals + count, time.monotonic() + 60.0
    while load.counts.refusals < goal:
        assert time.monotonic() < deadline, load.counts
        time.sleep(0.05)


@contextmanager
def stalled(cluster: Cluster, load: Load, *, both: bool = False) -> Iterator[tuple[Node, Node, Node]]:
    """Load, with replication stalled: (the master, its replica that lags, the other one)."""
    master = cluster.master_of(REGISTRY_SLOT)
    lagging, other = cluster.replicas_of(master)
    with load.sending():
        load.wait_for_acknowledgements(STEADY)
        for replica in (lagging, other) if both else (lagging,):
            replica.stall_replication()
        yield master, lagging, other


def test_a_lagging_replica_that_is_elected_is_given_back_what_it_lacks(whole: Cluster, serve: Serve) -> None:
    load = loaded(serve(2), "elected")
    with stalled(whole, load) as (master, lagging, other):
        load.wait_for_acknowledgements(STEADY)
        # The other one has it all; with it gone the cluster elects the one that lags, as it must.
        for server in (master, other):
            server.kill()
        elected = whole.wait_for_failover(REGISTRY_SLOT, master)
        assert elected is lagging
        lagging.resume_replication()
        whole.start_node(other)
        load.wait_for_acknowledgements(STEADY)
    tell(
        "a lagging replica elected",
        lost=0,
        seconds_without_acknowledgement=load.counts.gap_seconds_max,
        refusals=load.counts.refusals,
    )
    look_everywhere(load)


def test_with_replication_stalled_at_both_replicas_nothing_is_acknowledged_and_nothing_lost(
    whole: Cluster, serve: Serve
) -> None:
    load = loaded(serve(2, IMPATIENT), "both")
    with stalled(whole, load, both=True) as (master, lagging, other):
        wait_for_refusals(load, 2 * SHAPE.clients)
        master.kill()
        other.resume_replication()
        lagging.take_over()
        load.wait_for_acknowledgements(STEADY)
    look_everywhere(load)


def test_a_node_lost_in_the_same_moment_gives_back_what_the_elected_replica_lacks_when_it_starts(
    whole: Cluster, serve: Serve
) -> None:
    assert lost_with_the_node(whole, serve, data_too=False) == 0


def test_without_the_outbox_what_the_elected_replica_lacks_is_lost_and_nothing_else(
    whole: Cluster, serve: Serve
) -> None:
    assert lost_with_the_node(whole, serve, data_too=True) > 0


def lost_with_the_node(cluster: Cluster, serve: Serve, *, data_too: bool) -> int:
    """The node that has acknowledged it is lost together with the master, and comes back, without its data or with."""
    service = serve(1)
    (node,) = service.nodes
    load = loaded(service, "alone")
    with stalled(cluster, load) as (master, lagging, _):
        before = load.counts.acknowledged
        load.wait_for_acknowledgements(2 * STEADY)
        node.kill()
        at_risk = load.counts.acknowledged - before
        master.kill()
        lagging.take_over()
        if data_too:
            node.lose_data()
        node.start()
        load.wait_for_acknowledgements(STEADY)
    findings = load.look()
    lost = findings.lost_count
    tell("master and node lost" + (", its data too" if data_too else ""), while_lagging=at_risk, lost=lost)
    assert lost <= at_risk
    assert (findings.unexplained, findings.sizes) == ({}, {})
    return lost


def test_with_every_replica_asked_nothing_is_lost_without_an_outbox_and_a_lagging_one_stops_writing(
    whole: Cluster, serve: Serve
) -> None:
    service = serve(1, EVERY_COPY)
    (node,) = service.nodes
    load = loaded(service, "copies")
    with stalled(whole, load) as (master, lagging, _):
        wait_for_refusals(load, 2 * SHAPE.clients)
        node.kill()
        master.kill()
        lagging.take_over()
        node.lose_data()
        # Two replicas must have everything, and as long as the former master is away there is one.
        whole.start_node(master)
        node.start()
        load.wait_for_acknowledgements(STEADY)
    tell("every replica asked, one lags", refusals=load.counts.refusals, lost=load.look().lost_count)
    assert load.look() == NOTHING_WRONG
