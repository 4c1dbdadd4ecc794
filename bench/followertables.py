"""The tables of `python -m bench followers`. Owns their form, and what is derived from the values. Never measures."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench import cores
from bench.perprocess import Memory

_MIB: Final = 1 << 20
Values = Mapping[tuple[int, str, str], Sequence[float]]


def median(values: Values, count: int, work: str, name: str) -> float:
    """Of all rounds."""
    return statistics.median(values[count, work, name])


def rates(values: Values, counts: Sequence[int], shown: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """What clients see."""
    yield "## Rates"
    yield ""
    yield "Medians; queries of 3 audiences on 16 connections, ingest in requests of 500 on 16 connections at full rate."
    yield ""
    yield "| followers | " + " | ".join(f"{work}: {unit}" for work, _, unit in shown) + " | foreign CPU |"
    yield "|---:" * (len(shown) + 2) + "|"
    for count in counts:
        cells = []
        for work, name, unit in shown:
            value = median(values, count, work, name)
            cells.append(f"{value / 1000:.1f}" if unit == "p99 ms" else f"{value:,.0f}")
        # Here the load counts as foreign, because it has the same cores.
        foreign = max(median(values, count, work, "foreign_cpu") for work, _, _ in shown)
        yield f"| {count} | {' | '.join(cells)} | {foreign:.0%} |"
    yield ""


def processor_time(values: Values, counts: Sequence[int]) -> Iterator[str]:
    """What the rates would be if the load took nothing from the servers' cores."""
    yield "## Processor time"
    yield ""
    yield "User and system, of owner and followers together; the load is that of wrk, as a share of one core."
    yield ""
    yield "| followers | µs a query, alone | load | µs an event | load, both | both: owner | followers | children |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for count in counts:
        alone = seconds_of(values, count, "queries alone") / median(values, count, "queries alone", "queries")
        event = seconds_of(values, count, "ingest alone") / median(values, count, "ingest alone", "events")
        load = [median(values, count, work, "load_cpu") for work in ("queries alone", "both")]
        both = [median(values, count, "both", f"{role}_seconds") for role in ("owner", "followers", "children")]
        shares = " | ".join(f"{used:.1f} s" for used in both)
        yield f"| {count} | {alone * 1e6:.1f} | {load[0]:.0%} | {event * 1e6:.2f} | {load[1]:.0%} | {shares} |"
    owner = median(values, 0, "queries alone", "per_second")
    follower = median(values, 1, "queries, owner stopped", "per_second")
    yield ""
    yield (
        f"One at a time, the load on the other core: the owner answers {owner:,.0f} queries/s, a follower"
        f" {follower:,.0f}; together {(owner + follower) / owner:.2f} x the owner, given a core for the load."
    )
    yield ""


def seconds_of(values: Values, count: int, work: str) -> float:
    """Processor seconds of owner and followers in one run."""
    return median(values, count, work, "owner_seconds") + median(values, count, work, "followers_seconds")


def memory_row(memberships: int, count: int, role: str, held: Memory, overlay_entries: int) -> str:
    """One process."""
    sizes = (held.resident, held.proportional, held.store, held.store_dirty, held.anonymous)
    cells = " | ".join(f"{size / _MIB:,.1f}" for size in sizes)
    return f"| {memberships:,} | {count} | {role} | {cells} | {overlay_entries:,} |"


def memory(rows: Sequence[str]) -> Iterator[str]:
    """rows: of `memory_row`."""
    yield "## Memory"
    yield ""
    yield (
        "MiB. Pages of the store belong to LMDB's files: all processes and the system's cache have the same ones. What"
        " a follower costs is its own memory, and that does not depend on the memberships."
    )
    yield ""
    yield "| memberships | followers | process | RSS | PSS | the store's | dirty there | its own | overlay entries |"
    yield "|---:|---:|---|---:|---:|---:|---:|---:|---:|"
    yield from rows
    yield ""


def paper(values: Values, decoding_seconds: float) -> Iterator[str]:
    """See `cores`."""
    ingest = "ingest alone"
    events = median(values, 1, ingest, "events")
    alone = "queries, owner stopped"
    costs = cores.Costs(
        q=median(values, 1, alone, "followers_seconds") / median(values, 1, alone, "queries"),
        e=median(values, 1, ingest, "owner_seconds") / events,
        f=median(values, 1, ingest, "followers_seconds") / events,
        # Folds come later than what they fold, so all runs are taken together.
        c=_total(values, "children_seconds") / _total(values, "events"),
        d=decoding_seconds,
    )
    yield "## More cores, on paper"
    yield ""
    yield from (cores.__doc__ or "").split("\n\n", 2)[2].strip("\n").splitlines()
    yield ""
    yield from cores.described(costs)


def _total(values: Values, wanted: str) -> float:
    return sum(sum(found) for (_, _, name), found in values.items() if name == wanted)
