"""The parts of a run: which work is done in which order, round after round.

Owns the order. Rounds are interleaved (A B C, A B C, ...), so that a machine that becomes slower or faster meets every
contestant alike. Never touches a process or a socket itself.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench.arena import Arena, wait_until_idle
from bench.contestants import Contestant
from bench.measurements import Failure, Measurement, Results
from bench.processes import BenchError, disk_bytes_of, memory_of
from bench.work import EVENTS, MIXED, QUERIES, EventWork, QueryWork
from bench.world import MEMBERSHIPS_PER_IDENTIFIER

PARTS: Final = ("queries", "events", "mixed", "scale")
SCALE_BATCH: Final = 500


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how large. seconds: of one measurement, whole. sizes: memberships in part `scale`."""

    rounds: int
    seconds: int
    memberships: int
    sizes: tuple[int, ...]
    restarts: int
    server_cpus: tuple[int, ...]
    load_cpus: tuple[int, ...]


class Run:
    """A run over given contestants. scratch: an empty folder that the caller removes."""

    def __init__(self, contestants: Sequence[Contestant], plan: Plan, scratch: Path) -> None:
        self._contestants = contestants
        self._plan = plan
        self._scratch = scratch
        self._arena = Arena(scratch, plan.server_cpus, plan.load_cpus, plan.seconds)
        self.results = Results()

    def run(self, parts: Sequence[str]) -> None:
        """Do the parts. What fails is noted in `results.failures` and the rest goes on."""
        try:
            if {"queries", "events", "mixed"} & set(parts):
                self._start_all()
                for part in parts:
                    self._side_by_side(part)
        finally:
            for contestant in self._contestants:
                contestant.stop()
        if "scale" in parts:
            for memberships in self._plan.sizes:
                for contestant in self._contestants:
                    self._one_size(contestant, memberships)

    def _start_all(self) -> None:
        for contestant in self._contestants:
            say(f"starting {contestant.name} and loading {self._plan.memberships:,} memberships")
            contestant.start(self._scratch / contestant.name, self._plan.server_cpus)
            self._arena.load(contestant, self._plan.memberships)

    def _side_by_side(self, part: str) -> None:
        arena, memberships = self._arena, self._plan.memberships
        if part == "queries":
            for query in QUERIES:
                self._rounds(part, query.name, partial(arena.queries, work=query, memberships=memberships))
        elif part == "events":
            for event in EVENTS:
                self._rounds(part, event.name, partial(arena.events, work=event))
        elif part == "mixed":
            for mixed in MIXED:
                self._rounds(part, mixed.name, partial(arena.mixed, work=mixed, memberships=memberships))

    def _rounds(self, part: str, work: str, measure: Callable[[Contestant], dict[str, float]]) -> None:
        for number in range(1, self._plan.rounds + 1):
            for contestant in self._contestants:
                with contextlib.ExitStack() as stack:
                    for other in self._contestants:
                        if other is not contestant:
                            stack.enter_context(other.frozen())
                    self._measure(part, work, contestant, number, measure)

    def _measure(
        self,
        part: str,
        work: str,
        contestant: Contestant,
        number: int,
        measure: Callable[[Contestant], dict[str, float]],
    ) -> bool:
        """Take one measurement and keep it; False where it failed."""
        try:
            values = measure(contestant)
        except (BenchError, OSError) as error:
            self.results.failures.append(Failure(part, work, contestant.name, number, str(error)))
            say(f"FAILED {contestant.name}: {work}: {error}")
            return False
        self.results.measurements.append(Measurement(part, work, contestant.name, number, values))
        shown = "  ".join(f"{name} {value:,.0f}" for name, value in values.items() if "per_second" in name)
        busy = "  ".join(
            f"{name} {values[name]:.0%}" for name in ("server_cpu", "foreign_cpu", "load_cpu") if name in values
        )
        say(f"{work} · {contestant.name} · round {number}: {shown}  {busy}")
        return True

    def _one_size(self, contestant: Contestant, memberships: int) -> None:
        """A fresh contestant: empty, loaded, started again and queried, at last fed; then gone."""
        folder = self._scratch / f"{contestant.name}-{memberships}"
        work = f"{memberships / 1e6:g}M memberships"
        try:
            for number in range(1, self._plan.restarts + 1):
                if not self._measure(
                    "scale",
                    work,
                    contestant,
                    number,
                    partial(self._sized, folder=folder, memberships=memberships, number=number),
                ):
                    break
        finally:
            contestant.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def _sized(self, contestant: Contestant, folder: Path, memberships: int, number: int) -> dict[str, float]:
        values = self._loaded(contestant, folder, memberships) if number == 1 else {}
        contestant.stop()
        started = time.monotonic()
        contestant.start(folder, self._plan.server_cpus)
        values["start_seconds"] = time.monotonic() - started
        values["identifiers_per_second"] = memberships / MEMBERSHIPS_PER_IDENTIFIER / values["start_seconds"]
        wait_until_idle(contestant)
        if number == 1:
            growth = memory_of(contestant.pids()).anonymous - values["empty_bytes"]
            values["restarted_bytes_per_membership"] = growth / memberships
            values["disk_bytes_per_membership"] = disk_bytes_of(folder) / memberships
        values.update(self._arena.queries(contestant, QueryWork(), memberships))
        if number == self._plan.restarts:
            # Ingest makes the store larger, so it comes when no start is measured any more.
            events = self._arena.events(contestant, EventWork(batch=SCALE_BATCH))
            values["events_per_second"] = events["events_per_second"]
        return values

    def _loaded(self, contestant: Contestant, folder: Path, memberships: int) -> dict[str, float]:
        say(f"loading {memberships:,} memberships into {contestant.name}")
        started = time.monotonic()
        contestant.start(folder, self._plan.server_cpus)
        start_seconds = time.monotonic() - started
        wait_until_idle(contestant)
        empty = {pid: memory_of([pid]).anonymous for pid in contestant.pids()}
        self._arena.load(contestant, memberships)
        loaded = memory_of(contestant.pids())
        grown = [memory_of([pid]).anonymous - before for pid, before in empty.items()]
        return {
            "empty_bytes": sum(empty.values()),
            "empty_start_seconds": start_seconds,
            "resident_bytes": loaded.resident,
            "anonymous_bytes_per_membership": (loaded.anonymous - sum(empty.values())) / memberships,
            "largest_process_bytes_per_membership": max(grown) / memberships,
        }


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)
