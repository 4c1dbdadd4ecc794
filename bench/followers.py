"""`python -m bench followers [--rounds N]`: what followers give and cost on two cores.

For 0, 1 and 2 followers: queries alone, ingest alone, both at once; what each process holds in memory; how many
connections went from process to process. The owner has core 0, followers have core 1, and the load shares both, so
the figures of one and two followers lack what the load takes from them. Prints a table; judges nothing.
"""

import argparse
import contextlib
import http.client
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench import machine
from bench.arena import Arena
from bench.contestants import Segmentd
from bench.parts import say
from bench.processes import BenchError
from bench.work import EventWork, MixedWork, QueryWork

FOLLOWERS: Final = (0, 1, 2)
OWNER_CPU: Final = 0
FOLLOWER_CPU: Final = 1
BATCH: Final = 500
_KIB: Final = 1024
_QUERIES: Final = QueryWork()
_INGEST: Final = EventWork(batch=BATCH)
_BOTH: Final = MixedWork(query=_QUERIES, events=_INGEST)
_SHOWN: Final = (
    ("queries alone", "per_second", "queries/s"),
    ("queries alone", "p99_us", "p99 ms"),
    ("ingest alone", "events_per_second", "events/s"),
    ("both", "per_second", "queries/s"),
    ("both", "p99_us", "p99 ms"),
    ("both", "events_per_second", "events/s"),
)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench followers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of one measurement")
    parser.add_argument("--memberships", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write what is printed there too, as Markdown")
    options = parser.parse_args(arguments)
    try:
        machine.require_tools(["wrk", "taskset"])
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            lines = list(_measured(Path(scratch), options))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    facts = [f"- {name}: {value}" for name, value in machine.facts().items()]
    text = "\n".join(["# Followers", "", (__doc__ or "").partition("\n\n")[2].strip(), "", *facts, "", *lines])
    print(text)
    if options.write is not None:
        options.write.write_text(text + "\n")
    return 0


def _measured(scratch: Path, options: argparse.Namespace) -> Iterator[str]:
    arena = Arena(scratch, (OWNER_CPU, FOLLOWER_CPU), (OWNER_CPU, FOLLOWER_CPU), options.seconds)
    servers = {count: _started(arena, scratch, count, options.memberships) for count in FOLLOWERS}
    values: dict[tuple[int, str, str], list[float]] = {}
    try:
        for number in range(options.rounds):
            for count, server in servers.items():
                with contextlib.ExitStack() as stack:
                    for other in servers.values():
                        if other is not server:
                            stack.enter_context(other.frozen())
                    for work, measure in _works(arena, server, options.memberships):
                        found = measure()
                        say(f"round {number + 1} · {count} followers · {work}: {found}")
                        for name, value in found.items():
                            values.setdefault((count, work, name), []).append(value)
        yield from _table(values)
        yield ""
        for count, server in servers.items():
            yield from _described(count, server)
    finally:
        for server in servers.values():
            server.stop()


def _started(arena: Arena, scratch: Path, count: int, memberships: int) -> Segmentd:
    """A server with so many followers, each process on its core, with the world loaded."""
    server = Segmentd(f"followers-{count}", "", {"server": {"followers": count}})
    server.start(scratch / server.name, (OWNER_CPU, FOLLOWER_CPU))
    arena.load(server, memberships)
    owner = server.pids()[0]
    for pid in server.pids():
        if pid == owner:
            _pin(pid, OWNER_CPU)
        elif _is_follower(pid):
            _pin(pid, FOLLOWER_CPU)
    return server


def _works(arena: Arena, server: Segmentd, memberships: int) -> list[tuple[str, partial[dict[str, float]]]]:
    return [
        ("queries alone", partial(arena.queries, server, _QUERIES, memberships)),
        ("ingest alone", partial(arena.events, server, _INGEST)),
        ("both", partial(arena.mixed, server, _BOTH, memberships)),
    ]


def _table(values: dict[tuple[int, str, str], list[float]]) -> Iterator[str]:
    yield "Medians; queries of 3 audiences on 16 connections, ingest in requests of 500 on 16 connections at full rate."
    yield ""
    yield "| followers | " + " | ".join(f"{work}: {unit}" for work, _, unit in _SHOWN) + " | foreign CPU |"
    yield "|---:" * (len(_SHOWN) + 2) + "|"
    for count in FOLLOWERS:
        cells = []
        for work, name, unit in _SHOWN:
            median = statistics.median(values[count, work, name])
            cells.append(f"{median / 1000:.1f}" if unit == "p99 ms" else f"{median:,.0f}")
        foreign = max(max(values.get((count, work, "foreign_cpu"), [0.0])) for work, _, _ in _SHOWN)
        yield f"| {count} | {' | '.join(cells)} | {foreign:.0%} |"


def _described(count: int, server: Segmentd) -> Iterator[str]:
    """Memory of each process, and hand-overs."""
    processes = [(pid, "follower") for pid in server.pids() if _is_follower(pid)]
    for pid, role in [(server.pids()[0], "owner"), *processes]:
        resident, proportional = _memory(pid)
        yield f"- {count} followers, {role}: RSS {resident / _KIB:,.0f} MiB, PSS {proportional / _KIB:,.0f} MiB"
    for line in _metrics(server):
        if line.startswith("segmentd_connections_handed_over_total"):
            yield f"- {count} followers: `{line}`"


def _metrics(server: Segmentd) -> list[str]:
    connection = http.client.HTTPConnection(server.endpoint.host, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode().splitlines()


def _pin(pid: int, cpu: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {cpu})


def _is_follower(pid: int) -> bool:
    return b"segmentd.follower" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _memory(pid: int) -> tuple[int, int]:
    """(RSS, PSS) in KiB."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Rss"].split()[0]), int(rows["Pss"].split()[0])
