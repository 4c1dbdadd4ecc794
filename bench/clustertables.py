"""What the bench of a cluster found, as tables, and what it means for a large one, as arithmetic.

Owns the formulas. Never measures.

    n_e, n_q    processor time of an event and of a query in a node     p_e, p_q    in the primaries
    r_e         of an event in the two replicas together                b           bytes of a membership in a primary

A node and a server have one core each that counts, of which BUSY is used, so that there is room for a failure. Nodes
for E events and Q queries a second: (E n_e + Q n_q) / BUSY. Primaries: (E p_e + Q p_q) / BUSY, or
M b HEADROOM / SERVER_BYTES where memory asks for more. Each primary has two replicas of the same size.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Final

import msgspec

from bench.clusterload import Gap

MEMBERSHIPS: Final = 1_000_000_000
EVENTS_PER_SECOND: Final = 500_000
QUERIES_PER_SECOND: Final = 1_000_000
BUSY: Final = 0.7
HEADROOM: Final = 1.5
"""For copy on write while an append-only file is written anew, fragmentation, and growth."""
SERVER_BYTES: Final = 32 << 30
"""Of one server's data: more takes long to copy to a new replica."""
REPLICAS: Final = 2
_GIB: Final = 1 << 30
Values = Mapping[tuple[int, str, str], Sequence[float]]
"""(nodes, work, name of a value) → that value in each round."""


class Costs(msgspec.Struct, frozen=True):
    """Seconds of processor time, see above."""

    n_e: float
    n_q: float
    p_e: float
    p_q: float
    r_e: float


class Bytes(msgspec.Struct, frozen=True):
    """Of one membership, in the memory of the primaries. each: memberships of an identifier."""

    each: int
    all: float
    members: float
    """Of it: the sorted sets of members."""


def rates(values: Values, nodes: Sequence[int], works: Sequence[tuple[str, str]]) -> Iterator[str]:
    """works: (name, the name of its rate)."""
    yield "| nodes | work | a second | p50 ms | p99 ms | node µs | primaries µs | replicas µs |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|"
    for count in nodes:
        for work, rate in works:
            shown = [f"{_of(values, count, work, rate):,.0f}"]
            shown += [f"{_of(values, count, work, name) / 1000:,.1f}" for name in ("p50_us", "p99_us")]
            shown += [f"{cost(values, count, work, role) * 1e6:,.1f}" for role in ("node", "primaries", "replicas")]
            yield f"| {count} | {work} | " + " | ".join(shown) + " |"
    yield ""


def memory(found: Sequence[Bytes]) -> Iterator[str]:
    """A row for each density."""
    yield "| memberships of an identifier | bytes a membership | of it members' sorted sets |"
    yield "|---:|---:|---:|"
    for each in found:
        yield f"| {each.each} | {each.all:,.0f} | {each.members:,.0f} |"
    yield ""


def failover(gaps: Mapping[str, Gap], timeout_ms: int) -> Iterator[str]:
    """What clients saw when a primary was killed."""
    yield f"A primary is killed (kill -9) under load; `cluster-node-timeout {timeout_ms}`:"
    yield ""
    yield "| | sent | refused | slowest success, s | from the fault to the last answer held up, s |"
    yield "|---|---:|---:|---:|---:|"
    for kind, gap in gaps.items():
        seconds = f"{gap.longest_seconds:.2f} | {gap.until_all_seconds:.2f}"
        yield f"| {kind} | {gap.sent:,} | {gap.refused:,} | {seconds} |"
    yield ""


def cost(values: Values, nodes: int, work: str, role: str) -> float:
    """Seconds of processor time of one event or query, over all processes of a role."""
    done = _of(values, nodes, work, "done")
    return _of(values, nodes, work, f"{role}_seconds") / done if done else 0.0


def paper(costs: Costs, found: Sequence[Bytes]) -> Iterator[str]:
    """The arithmetic, shown."""
    micro = {name: value * 1e6 for name, value in msgspec.structs.asdict(costs).items()}
    e, q = EVENTS_PER_SECOND, QUERIES_PER_SECOND
    yield f"On paper: {MEMBERSHIPS:,} memberships, {e:,} events/s in requests of 500, {q:,} queries/s."
    yield "Processor time in µs: " + ", ".join(f"{name} = {value:.1f}" for name, value in micro.items()) + "."
    yield ""
    node_cores = e * costs.n_e + q * costs.n_q
    primary_cores = e * costs.p_e + q * costs.p_q
    nodes, by_cores = ceil(node_cores / BUSY), ceil(primary_cores / BUSY)
    yield (
        f"- Nodes: {e:,} x {micro['n_e']:.1f} µs + {q:,} x {micro['n_q']:.1f} µs = {node_cores:,.1f} cores;"
        f" at {BUSY:.0%} busy **{nodes} nodes** of one core."
    )
    yield (
        f"- Primaries by processor time: {e:,} x {micro['p_e']:.1f} µs + {q:,} x {micro['p_q']:.1f} µs ="
        f" {primary_cores:,.1f} cores; at {BUSY:.0%} busy {by_cores} primaries."
    )
    for each in found:
        held = MEMBERSHIPS * each.all
        by_memory = ceil(held * HEADROOM / SERVER_BYTES)
        primaries = max(by_cores, by_memory)
        yield (
            f"- At {each.each} memberships an identifier: {MEMBERSHIPS:,} x {each.all:,.0f} B ="
            f" {held / _GIB:,.0f} GiB in the primaries, x {1 + REPLICAS} copies x {HEADROOM} headroom ="
            f" **{held * (1 + REPLICAS) * HEADROOM / _GIB:,.0f} GiB** of memory; by memory {by_memory} primaries of"
            f" {SERVER_BYTES // _GIB} GiB. So **{primaries} primaries and {primaries * REPLICAS} replicas**."
        )
    replica_cores = e * costs.r_e / max(1, by_cores) / REPLICAS
    yield f"- A replica of {by_cores} primaries uses {replica_cores:.2f} of its core for events, and none for queries."
    yield ""


def _of(values: Values, nodes: int, work: str, name: str) -> float:
    return median(values.get((nodes, work, name), [0.0]))
