"""`python -m bench followers [--rounds N]`: what followers give and cost on two cores.

For 0, 1 and 2 followers: queries alone, ingest alone, both at once; processor time of each; what each process holds in
memory at two sizes; how many connections went from process to process; what more cores give on paper. The owner has
core 0, followers have core 1, and the load shares both, so rates of one and two followers lack what the load takes from
them. Two figures do not: processor time for each query, and the rates of owner and follower one at a time, while the
other one is stopped and the load has its core. Prints tables; judges nothing.
"""

import argparse
import contextlib
import http.client
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench import cores, followertables, machine, perprocess
from bench.arena import Arena
from bench.contestants import Segmentd
from bench.parts import say
from bench.processes import BenchError, send_signal
from bench.work import EventWork, MixedWork, QueryWork

FOLLOWERS: Final = (0, 1, 2)
OWNER_CPU: Final = 0
FOLLOWER_CPU: Final = 1
BATCH: Final = 500
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
_FOLLOWER_ALONE: Final = "queries, owner stopped"
Values = dict[tuple[int, str, str], list[float]]
"""(followers, work, name of a value) → that value in each round."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench followers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of one measurement")
    parser.add_argument("--memberships", type=int, default=1_000_000)
    parser.add_argument(
        "--large", type=int, default=5_000_000, help="memberships of the second look at memory; 0: none"
    )
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
    servers: dict[int, Segmentd] = {}
    memory: list[str] = []
    values: Values = {}
    try:
        for count in FOLLOWERS:
            with _only(None, servers):
                servers[count] = _started(arena, scratch, count, options.memberships)
                memory += _memory(arena, servers[count], count, options.memberships)
        for number in range(options.rounds):
            for count, server in servers.items():
                with _only(server, servers):
                    _round(arena, server, count, options, values)
            say(f"round {number + 1} of {options.rounds} is over")
        yield from followertables.rates(values, FOLLOWERS, _SHOWN)
        yield from followertables.processor_time(values, FOLLOWERS)
        yield from _hand_overs(servers)
    finally:
        for server in servers.values():
            server.stop()
    if options.large:
        memory += _large(arena, scratch, options.large)
    yield from followertables.memory(memory)
    yield from followertables.paper(values, cores.decoding_seconds(BATCH))


@contextlib.contextmanager
def _only(server: Segmentd | None, servers: dict[int, Segmentd]) -> Iterator[None]:
    """All others are frozen."""
    with contextlib.ExitStack() as stack:
        for other in servers.values():
            if other is not server:
                stack.enter_context(other.frozen())
        yield


def _started(arena: Arena, scratch: Path, count: int, memberships: int) -> Segmentd:
    """A server with so many followers, each process on its core, with the world loaded."""
    server = Segmentd(f"followers-{count}-{memberships}", "", {"server": {"followers": count}})
    server.start(scratch / server.name, (OWNER_CPU, FOLLOWER_CPU))
    try:
        arena.load(server, memberships)
        perprocess.pin(server.pids(), owner_cpu=OWNER_CPU, follower_cpu=FOLLOWER_CPU)
    except BaseException:
        server.stop()
        raise
    return server


def _large(arena: Arena, scratch: Path, memberships: int) -> list[str]:
    server = _started(arena, scratch, 1, memberships)
    try:
        return list(_memory(arena, server, 1, memberships))
    finally:
        server.stop()


def _round(arena: Arena, server: Segmentd, count: int, options: argparse.Namespace, values: Values) -> None:
    """All works once. What was asked is counted too, so that processor time can be shared out."""
    works = [
        ("queries alone", partial(arena.queries, server, _QUERIES, options.memberships)),
        ("ingest alone", partial(arena.events, server, _INGEST)),
        ("both", partial(arena.mixed, server, _BOTH, options.memberships)),
    ]
    if count == 1:
        works.append((_FOLLOWER_ALONE, partial(_follower_alone, arena, server, options.memberships)))
    for work, measure in works:
        with perprocess.processor_time(server.pids()) as seconds:
            found = measure()
        found |= {f"{role}_seconds": used for role, used in seconds.items()}
        found["queries"] = found.get("per_second", 0.0) * options.seconds
        found["events"] = found.get("events_per_second", 0.0) * options.seconds
        say(f"{count} followers · {work}: {found}")
        for name, value in found.items():
            values.setdefault((count, work, name), []).append(value)


def _follower_alone(arena: Arena, server: Segmentd, memberships: int) -> dict[str, float]:
    """The owner is stopped, so that it accepts nothing, and the load has its core."""
    owner = server.pids()[:1]
    send_signal(owner, signal.SIGSTOP)
    try:
        return arena.queries(server, _QUERIES, memberships)
    finally:
        send_signal(owner, signal.SIGCONT)


def _memory(arena: Arena, server: Segmentd, count: int, memberships: int) -> Iterator[str]:
    """A row for each process, after queries that looked all over the index."""
    arena.queries(server, _QUERIES, memberships)
    overlay = sum(int(float(line.split()[-1])) for line in _metrics(server, "segmentd_following_overlay_entries"))
    for pid, role in perprocess.roles(server.pids()).items():
        if role != "children":
            held = overlay // count if role == "followers" else 0
            yield followertables.memory_row(memberships, count, role, perprocess.memory_of(pid), held)


def _hand_overs(servers: dict[int, Segmentd]) -> Iterator[str]:
    for count, server in servers.items():
        for line in _metrics(server, "segmentd_connections_handed_over_total"):
            yield f"- {count} followers: `{line}`"
    yield ""


def _metrics(server: Segmentd, name: str) -> list[str]:
    """The lines of /metrics that begin with `name`."""
    connection = http.client.HTTPConnection(server.endpoint.host, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return [line for line in lines if line.startswith(name)]
