"""`python -m bench cluster`: what a cluster of 3 x 3 servers gives and costs, with one segmentd node and with two.

Events in requests of 500 and of 10, queries, processor time of each in node, primaries and replicas, bytes of a
membership, and what clients see when a primary is killed. Nine servers, the nodes and the load share the cores of this
machine, so rates are relative; processor time and memory are not, and what a large cluster needs follows from them on
paper. Every answer is checked as in all other parts. Prints tables; judges nothing.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import clustertables, machine
from bench.arena import Arena
from bench.clusterload import Gap, Trickle, load
from bench.clustertables import Bytes, Costs
from bench.contestants import Segmentd
from bench.parts import say
from bench.processes import BenchError, cpu_seconds_of
from bench.work import EventWork, QueryWork
from tests.cluster.cluster import SETTINGS, Cluster
from tests.cluster.nodes import Node

NODES: Final = (1, 2)
DENSITIES: Final = (5, 20)
_BIG, _SMALL, _QUERY = EventWork(batch=500), EventWork(batch=10), QueryWork()
_WORKS: Final = (("events in requests of 500", "events_per_second"), ("events in requests of 10", "events_per_second"),
                 ("queries", "per_second"))  # fmt: skip
_RUNS_APART: Final = 500
"""So that what two nodes are sent at the same time is about different identifiers."""
_BEFORE_FAULT_SECONDS: Final = 3.0
_AFTER_FAULT_SECONDS: Final = 15.0
Values = dict[tuple[int, str, str], list[float]]


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of one measurement")
    parser.add_argument("--memberships", type=int, default=400_000, help="loaded, for memory and for queries")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write what is printed there too, as Markdown")
    options = parser.parse_args(arguments)
    try:
        machine.require_tools(["wrk", "taskset"])
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch, Cluster(Path(scratch) / "cluster") as cluster:
            lines = list(_measured(Path(scratch), cluster, options))
            facts = [f"- {name}: {value}" for name, value in machine.facts().items()]
            version = ".".join(map(str, cluster.engine.version))
            facts.append(f"- servers: 3 x 3, {cluster.engine.product} {version}")
    except (BenchError, AssertionError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text = "\n".join(["# Cluster", "", (__doc__ or "").partition("\n\n")[2].strip(), "", *facts, "", *lines])
    print(text)
    if options.write is not None:
        options.write.write_text(text + "\n")
    return 0


def _measured(scratch: Path, cluster: Cluster, options: argparse.Namespace) -> Iterator[str]:
    values: Values = {}
    found = [_bytes(scratch, cluster, each, options.memberships) for each in DENSITIES]
    cluster.flush()
    with ExitStack() as stack:
        nodes = [_node(scratch, cluster, number, stack) for number in range(max(NODES))]
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        arenas = [_arena(scratch, number, cpus, options.seconds) for number in range(max(NODES))]
        arenas[0].load_restless(nodes[0], options.memberships)
        idle = _idle(cluster, nodes[0], options.seconds)
        say(f"at rest, in cores: {idle}")
        for number in range(options.rounds):
            for count in NODES:
                _round(cluster, list(zip(arenas, nodes, strict=True))[:count], options, idle, values)
            say(f"round {number + 1} of {options.rounds} is over")
        gaps = _failover(cluster, nodes[0])
    yield "At rest, in cores, left out below: " + ", ".join(f"{role} {used:.2f}" for role, used in idle.items()) + "."
    yield ""
    yield from clustertables.rates(values, NODES, _WORKS)
    yield from clustertables.memory(found)
    yield from clustertables.failover(gaps, int(str(SETTINGS["cluster-node-timeout"])))
    (big, _), _, (query, _) = _WORKS
    yield from clustertables.paper(
        Costs(
            n_e=clustertables.cost(values, 1, big, "node"),
            n_q=clustertables.cost(values, 1, query, "node"),
            p_e=clustertables.cost(values, 1, big, "primaries"),
            p_q=clustertables.cost(values, 1, query, "primaries"),
            r_e=clustertables.cost(values, 1, big, "replicas"),
        ),
        found,
    )


def _node(scratch: Path, cluster: Cluster, number: int | str, stack: ExitStack) -> Segmentd:
    store = {"kind": "cluster", "addresses": cluster.addresses}
    node = Segmentd(f"node-{number}", "", {"store": store})
    stack.callback(node.stop)
    node.start(scratch / node.name, tuple(sorted(os.sched_getaffinity(0))))
    return node


def _arena(scratch: Path, number: int, cpus: Sequence[int], seconds: int) -> Arena:
    folder = scratch / f"arena-{number}"
    folder.mkdir()
    return Arena(folder, cpus, cpus, seconds, first_run=number * _RUNS_APART)


def _bytes(scratch: Path, cluster: Cluster, each: int, memberships: int) -> Bytes:
    """Load so many memberships into an empty cluster, and ask its primaries what they take."""
    cluster.flush()
    with ExitStack() as stack:
        node = _node(scratch, cluster, f"of-{each}", stack)
        before = sum(map(_data_bytes, cluster.masters()))
        load(node.endpoint, memberships, each)
        used = sum(map(_data_bytes, cluster.masters())) - before
        members = sum(_member_bytes(master) for master in cluster.masters())
    say(f"{each} an identifier: {used / memberships:.1f} bytes a membership")
    return Bytes(each, used / memberships, members / memberships)


def _data_bytes(master: Node) -> int:
    """What it has allocated, without what it keeps for replicas and clients, which does not grow with the data."""
    found = master.info("memory")
    buffers = ("mem_clients_slaves", "mem_clients_normal", "mem_replication_backlog", "mem_total_replication_buffers")
    replicas = max(int(found.get(name, 0)) for name in buffers[2:])
    return int(found["used_memory"]) - replicas - sum(int(found.get(name, 0)) for name in buffers[:2])


def _member_bytes(master: Node) -> int:
    with master.connection() as connection:
        keys = connection.call("KEYS", "{*}m*")
        assert isinstance(keys, list)
        sizes = [connection.call("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys if isinstance(key, bytes)]
    return sum(size for size in sizes if isinstance(size, int))


def _round(
    cluster: Cluster,
    nodes: Sequence[tuple[Arena, Segmentd]],
    options: argparse.Namespace,
    idle: Mapping[str, float],
    values: Values,
) -> None:
    """All works once, by as many nodes at a time. idle: what a node and the servers use at rest, in cores."""
    measures: list[Callable[[Arena, Segmentd], dict[str, float]]] = [
        lambda arena, node: arena.events(node, _BIG),
        lambda arena, node: arena.events(node, _SMALL),
        lambda arena, node: arena.queries(node, _QUERY, options.memberships),
    ]
    for (work, rate), measure in zip(_WORKS, measures, strict=True):
        roles = _roles(cluster, [node for _, node in nodes])
        started, before = time.monotonic(), _cpu(roles)
        with ThreadPoolExecutor(len(nodes)) as threads:
            found = list(threads.map(lambda pair, measure=measure: measure(*pair), nodes))
        taken = time.monotonic() - started
        seconds = {
            f"{role}_seconds": max(
                0.0, used - before[role] - taken * idle[role] * (len(nodes) if role == "node" else 1)
            )
            for role, used in _cpu(roles).items()
        }
        rates = sum(each[rate] for each in found)
        slowest = {name: max(each[name] for each in found) for name in ("p50_us", "p99_us")}
        together = {rate: rates, "done": rates * options.seconds, **slowest, **seconds}
        say(f"{len(nodes)} nodes · {work}: {together}")
        for name, value in together.items():
            values.setdefault((len(nodes), work, name), []).append(value)


def _idle(cluster: Cluster, node: Segmentd, seconds: int) -> dict[str, float]:
    """Cores that looking after each other takes, which does not grow with the work."""
    roles = _roles(cluster, [node])
    before = _cpu(roles)
    time.sleep(seconds)
    return {role: (used - before[role]) / seconds for role, used in _cpu(roles).items()}


def _roles(cluster: Cluster, nodes: Sequence[Segmentd]) -> dict[str, list[int]]:
    """Role → its processes."""
    primaries = cluster.masters()
    return {
        "node": [pid for node in nodes for pid in node.pids()],
        "primaries": [server.pid for server in primaries],
        "replicas": [server.pid for server in cluster.nodes if server not in primaries],
    }


def _cpu(roles: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {role: cpu_seconds_of(pids) for role, pids in roles.items()}


def _failover(cluster: Cluster, node: Segmentd) -> dict[str, Gap]:
    """Kill a primary while small requests come in."""
    trickle, dying = Trickle(node.endpoint), cluster.masters()[0]
    with trickle.running():
        time.sleep(_BEFORE_FAULT_SECONDS)
        fault_at = time.monotonic()
        dying.kill()
        time.sleep(_AFTER_FAULT_SECONDS)
    return {kind: trickle.gap(kind, fault_at) for kind in ("events", "queries")}
