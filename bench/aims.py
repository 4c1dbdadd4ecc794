"""The aims, as ratios of medians in one run, and whether a run reached them.

Owns the numbers that were aimed at. Pure.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from bench.measurements import Results
from bench.work import EVENTS, MIXED, QUERIES

_QUERY, _ALONE = QUERIES[0].name, QUERIES[1].name
# A run of a few seconds loses its first tenth of a second to connecting.
PACE_SHARE_MIN: Final = 0.9
_LITERALS: Final = next(work.name for work in QUERIES if work.text == "javascript")


class Aim(NamedTuple):
    """`value` reads the run (None: not measured); it must be at least, or at most, `bound`."""

    title: str
    value: Callable[[Results], float | None]
    bound: float
    at_least: bool = True
    unit: str = "×"


def _of(results: Results, part: str, work: str, key: str, contestant: str = "segmentd") -> float | None:
    found = results.median(part, work, contestant, key)
    return found.value if found else None


def _times(part: str, work: str, key: str, other: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        ours, theirs = _of(results, part, work, key), _of(results, part, work, key, other)
        return ours / theirs if ours is not None and theirs else None

    return value


def _milliseconds(part: str, work: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found = _of(results, part, work, "p99_us")
        return None if found is None else found / 1000

    return value


def _during_ingest(results: Results) -> float | None:
    """p99 of queries in ms; infinite where the ingest did not keep its pace, because then it was another load."""
    work = MIXED[0]
    pace = _of(results, "mixed", work.name, "events_per_second")
    if pace is not None and pace < PACE_SHARE_MIN * work.events.pace:
        return float("inf")
    return _milliseconds("mixed", work.name)(results)


def _literals(results: Results) -> float | None:
    pasted, variables = (_of(results, "queries", work, "per_second") for work in (_LITERALS, _QUERY))
    return pasted / variables if pasted is not None and variables else None


def _events_of(batch: int) -> str:
    return next(work.name for work in EVENTS if work.batch == batch and work.distinct)


AIMS: Final = (
    Aim("queries/s at 16 connections, to the well-done peer", _times("queries", _QUERY, "per_second", "well-done"), 10),
    Aim("queries/s at 16 connections, to the main road", _times("queries", _QUERY, "per_second", "main-road"), 15),
    Aim("queries p99 at saturation", _milliseconds("queries", _QUERY), 3, False, "ms"),
    Aim("p50 at 1 connection, to the well-done peer", _times("queries", _ALONE, "p50_us", "well-done"), 0.25, False),
    Aim("queries/s with pasted literals, to variables", _literals, 0.6),
    *(
        Aim(
            f"events/s in requests of {batch}, to the well-done peer",
            _times("events", _events_of(batch), "events_per_second", "well-done"),
            bound,
        )
        for batch, bound in ((500, 2), (10, 3), (1, 4))
    ),
    Aim("queries p99 during 50k events/s", _during_ingest, 5, False, "ms"),
)


def judged(results: Results) -> list[str]:
    """One Markdown line an aim that this run measured."""
    lines = []
    for aim in AIMS:
        value = aim.value(results)
        if value is not None:
            reached = value >= aim.bound if aim.at_least else value <= aim.bound
            wanted = f"{'at least' if aim.at_least else 'at most'} {aim.bound:g} {aim.unit}"
            lines.append(f"- {'reached' if reached else 'MISSED'}: {aim.title}: {value:.2f} {aim.unit} ({wanted})")
    return lines
