"""One contestant after the other does the same work, alone on the server's cores.

Owns the running of single measurements: loading, checking, driving the load, reading what the server used. Never
decides what is measured (`parts.py` does).

Invariants:
1. While one contestant is measured, the others are frozen.
2. The load runs on other cores than the servers.
3. Every answer is checked: wrk compares each body with known ones, and before the first run of a kind of query a
   sample is checked request by request. After ingest of distinct identifiers a sample of what was acknowledged is
   queried.
"""

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.answers import EVENTS, GRAPHQL, Question, check_all, write_work_file
from bench.contestants import Contestant
from bench.processes import BenchError, busy_seconds_of, cpu_seconds_of
from bench.texts import python_sdk_body
from bench.work import SEED, EventWork, MixedWork, QueryWork, questions_of
from bench.world import (
    AUDIENCES,
    LIVE_TS_MS,
    MEMBERS_TS_MS,
    MEMBERSHIPS_PER_IDENTIFIER,
    SEGMENT_IDS,
    answer_of,
    live,
    live_segments_of,
    member,
    segments_of,
)
from bench.wrk import Load, LoadUse, Outcome

LOAD_BATCH = 500
LOAD_CONNECTIONS = 8
LOAD_SECONDS_MAX = 3600
SAMPLE = 60
# Distance between the identifiers, and between the times, of two ingest runs.
EVENTS_PER_RUN_MAX = 100_000_000
MS_PER_RUN = 1_000_000
IDLE_SHARE = 0.05
IDLE_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.5
# What was loaded is worked on again some time later: segmentd folds its journal after 10 s.
LOADED_SECONDS = 12.0


class Arena:
    """Runs work on contestants. seconds: whole, of one measurement. scratch: for files that wrk reads."""

    def __init__(
        self, scratch: Path, server_cpus: Sequence[int], load_cpus: Sequence[int], seconds: int, *, first_run: int = 0
    ) -> None:
        """first_run: where several send to one store at once, each begins far from the others."""
        self._scratch = scratch
        self._server_cpus = server_cpus
        self._load_cpus = load_cpus
        self._seconds = seconds
        self._runs = first_run
        self._work_files: dict[tuple[str, QueryWork, int], Path] = {}

    def load(self, contestant: Contestant, memberships: int) -> None:
        """Bring the world in, wait until the contestant has calmed down, and check a sample."""
        contestant.load(memberships, lambda: self._send_members(contestant, memberships))
        wait_until_idle(contestant, LOADED_SECONDS)
        self._check_members(contestant, memberships)

    def load_restless(self, contestant: Contestant, memberships: int) -> None:
        """The same for one that always has something to do, such as looking after a cluster."""
        contestant.load(memberships, lambda: self._send_members(contestant, memberships))
        self._check_members(contestant, memberships)

    def queries(self, contestant: Contestant, work: QueryWork, memberships: int) -> dict[str, float]:
        """Values of one run of queries."""
        path = self._work_file(contestant, work, memberships)
        with self._observed(contestant) as values:
            outcome = self._query_load(contestant, work, path).finish()
            values.update(_latencies(outcome), per_second=outcome.per_second)
        return values

    def events(self, contestant: Contestant, work: EventWork) -> dict[str, float]:
        """Values of one run of ingest."""
        first = self._next_run()
        with self._observed(contestant) as values:
            outcome = self._event_load(contestant, work, first).finish()
            values.update(_latencies(outcome), events_per_second=outcome.per_second * work.batch)
        self._check_ingest(contestant, work, first, outcome)
        return values

    def mixed(self, contestant: Contestant, work: MixedWork, memberships: int) -> dict[str, float]:
        """Values of one run of both; those of ingest begin with `events_`."""
        path = self._work_file(contestant, work.query, memberships)
        first = self._next_run()
        with self._observed(contestant) as values:
            ingest = self._event_load(contestant, work.events, first)
            try:
                query_outcome = self._query_load(contestant, work.query, path).finish()
            except BenchError:
                ingest.cancel()
                raise
            outcome = ingest.finish()
            values.update({f"events_{name}": value for name, value in _latencies(outcome).items()})
            values.update(_latencies(query_outcome), per_second=query_outcome.per_second)
            values["events_per_second"] = outcome.per_second * work.events.batch
        self._check_ingest(contestant, work.events, first, outcome)
        return values

    def _send_members(self, contestant: Contestant, memberships: int) -> None:
        arguments = ["members", LOAD_BATCH, 0, memberships, MEMBERS_TS_MS, 0]
        load = self._start(contestant, EVENTS, "events.lua", arguments, LOAD_CONNECTIONS, LOAD_SECONDS_MAX)
        outcome = load.finish()
        if outcome.refused or outcome.errors:
            raise BenchError(f"{contestant.name}: loading met {outcome.refused} refusals, {outcome.errors} errors")

    def _start(
        self,
        contestant: Contestant,
        path: str,
        script: str,
        arguments: Sequence[object],
        connections: int,
        seconds: int,
    ) -> Load:
        return Load(
            contestant.endpoint,
            path,
            script,
            arguments,
            connections=connections,
            seconds=seconds,
            cpus=self._load_cpus,
        )

    def _query_load(self, contestant: Contestant, work: QueryWork, path: Path) -> Load:
        arguments = [path, work.connections, SEED + self._runs]
        return self._start(contestant, GRAPHQL, "queries.lua", arguments, work.connections, self._seconds)

    def _event_load(self, contestant: Contestant, work: EventWork, first: int) -> Load:
        mode = "distinct" if work.distinct else "repeated"
        ts_ms = LIVE_TS_MS + self._runs * MS_PER_RUN
        arguments = [mode, work.batch, first, 0, ts_ms, work.pace / work.batch]
        return self._start(contestant, EVENTS, "events.lua", arguments, work.connections, self._seconds)

    def _next_run(self) -> int:
        """The number of the first event of a run that has not been."""
        self._runs += 1
        return self._runs * EVENTS_PER_RUN_MAX

    def _work_file(self, contestant: Contestant, work: QueryWork, memberships: int) -> Path:
        """Checked and written once; the answers of loaded identifiers never change."""
        known = (contestant.name, work, memberships)
        if known not in self._work_files:
            path = self._scratch / f"{len(self._work_files)}.work"
            write_work_file(path, contestant.endpoint, questions_of(work, memberships))
            self._work_files[known] = path
        return self._work_files[known]

    @contextlib.contextmanager
    def _observed(self, contestant: Contestant) -> Iterator[dict[str, float]]:
        """Adds how busy server, load, and all else on the server's cores were, each as a share of one core."""
        values: dict[str, float] = {}
        use, started = LoadUse(), time.monotonic()
        before, busy_before = cpu_seconds_of(contestant.pids()), busy_seconds_of(self._server_cpus)
        yield values
        seconds = time.monotonic() - started
        values["server_cpu"] = (cpu_seconds_of(contestant.pids()) - before) / seconds
        busy = (busy_seconds_of(self._server_cpus) - busy_before) / seconds
        values["foreign_cpu"] = max(0.0, busy - values["server_cpu"])
        values["load_cpu"] = use.share()

    def _check_members(self, contestant: Contestant, memberships: int) -> None:
        last = memberships // MEMBERSHIPS_PER_IDENTIFIER - 1
        numbers = [0, last, *random.Random(SEED).choices(range(last + 1), k=SAMPLE)]
        everywhere = range(AUDIENCES)
        check_all(
            contestant.endpoint,
            [
                Question(python_sdk_body(member(number), SEGMENT_IDS), answer_of(segments_of(number, everywhere)))
                for number in numbers
            ],
        )

    def _check_ingest(self, contestant: Contestant, work: EventWork, first: int, outcome: Outcome) -> None:
        """202 promised visibility. The second half may hold requests that were still under way at the end."""
        surely = outcome.accepted * work.batch // 2
        if not work.distinct or outcome.refused or outcome.errors or not surely:
            return
        everywhere = range(AUDIENCES)
        numbers = random.Random(SEED).choices(range(first, first + surely), k=SAMPLE)
        check_all(
            contestant.endpoint,
            [
                Question(python_sdk_body(live(number), SEGMENT_IDS), answer_of(live_segments_of(number, everywhere)))
                for number in numbers
            ],
        )


def wait_until_idle(contestant: Contestant, seconds: float = LOOK_SECONDS) -> None:
    """Wait until its processes use next to no processor time for so long: what is measured next starts from rest."""
    deadline = time.monotonic() + IDLE_SECONDS_MAX
    busy_at = time.monotonic()
    while time.monotonic() < deadline:
        before = cpu_seconds_of(contestant.pids())
        time.sleep(LOOK_SECONDS)
        if cpu_seconds_of(contestant.pids()) - before > LOOK_SECONDS * IDLE_SHARE:
            busy_at = time.monotonic()
        elif time.monotonic() - busy_at >= seconds:
            return
    raise BenchError(f"{contestant.name} did not calm down within {IDLE_SECONDS_MAX:.0f} s")


def _latencies(outcome: Outcome) -> dict[str, float]:
    return {
        "p50_us": outcome.p50_us,
        "p90_us": outcome.p90_us,
        "p99_us": outcome.p99_us,
        "p999_us": outcome.p999_us,
        "max_us": outcome.max_us,
        "refused": outcome.refused,
        "errors": outcome.errors,
    }
