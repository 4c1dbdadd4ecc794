"""`python -m bench [PART ...]`: runs the parts, prints the table, writes the dated files.

Owns the command line. Exit status: 0; 1 if a measurement failed; 2 if the run could not start.
"""

import argparse
import datetime
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import aims, cluster, collecting, followers, imports, machine, overload, report, sustained, waits
from bench.contestants import Contestant, Peer, choose
from bench.measurements import Results
from bench.parts import PARTS, Plan, Run, say
from bench.processes import BenchError

RESULTS = Path(__file__).parent / "results"
FULL_SIZES = (1_000_000, 5_000_000)
HUGE_SIZE = 20_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with the given command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    alone = {
        "cluster": cluster.main,
        "collecting": collecting.main,
        "followers": followers.main,
        "imports": imports.main,
        "overload": overload.main,
        "sustained": sustained.main,
        "waits": waits.main,
    }
    for name, part in alone.items():
        if given[:1] == [name]:
            return part(given[1:])
    options = _parser().parse_args(given)
    try:
        plan = _plan(options)
        contestants = choose(options.contestants.split(",") if options.contestants else [])
        machine.require_tools(["wrk", "taskset", *(["redis-server"] if _need_redis(contestants) else [])])
        facts = {**machine.facts(), **_described(plan)}
        os.sched_setaffinity(0, plan.load_cpus)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that what was started is stopped
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch) as scratch:
            run = Run(contestants, plan, Path(scratch))
            run.run([part for part in PARTS if not options.parts or part in options.parts])
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _show(run.results, contestants, facts, options)
    return 1 if run.results.failures else 0


def _show(
    results: Results, contestants: Sequence[Contestant], facts: dict[str, str], options: argparse.Namespace
) -> None:
    names = {contestant.name: contestant.describes for contestant in contestants}
    print(report.as_text(report.table(results, list(names))))
    judged = aims.judged(results)
    print("", *judged, "", report.disturbance(results), sep="\n")
    for failure in results.failures:
        print(f"FAILED: {failure.contestant}: {failure.work}, round {failure.round}: {failure.reason}")
    if options.write is None:
        return
    from bench import plots  # noqa: PLC0415 - matplotlib is slow to import, and needed only here

    stem = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d-%H%M}-{machine.commit()}{'-quick' if options.quick else ''}"
    written = report.write(options.write, stem, results, names, facts, judged)
    written += plots.draw(options.write, stem, results, list(names))
    for path in written:
        say(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description="segmentd beside its peers, on the same work.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, below three minutes")
    parser.add_argument("--huge", action="store_true", help="part scale with 20M memberships too")
    parser.add_argument("--contestants", default="", metavar="A,B", help="default: all; the first is compared")
    parser.add_argument("--rounds", type=int, help="default: 5, quick 1")
    parser.add_argument("--seconds", type=int, help="of one measurement; default: 2, quick 1")
    parser.add_argument("--memberships", type=int, help="loaded for all parts but scale; default: 1M, quick 100k")
    parser.add_argument("--sizes", help="of part scale, comma-separated; default: 1M and 5M, quick 200k")
    parser.add_argument("--server-cpus", default="0", help="cores of the servers, comma-separated; default: 0")
    parser.add_argument("--load-cpus", default="1", help="cores of the load; default: 1")
    parser.add_argument("--scratch", type=Path, help="folder for the stores, on the disk to be measured; default: /tmp")
    parser.add_argument("--write", type=Path, nargs="?", const=RESULTS, help="write dated files (to bench/results)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    sizes = [200_000] if quick else [*FULL_SIZES]
    if options.sizes:
        sizes = [int(size) for size in options.sizes.split(",")]
    server_cpus, load_cpus = (
        tuple(int(cpu) for cpu in text.split(",")) for text in (options.server_cpus, options.load_cpus)
    )
    if set(server_cpus) & set(load_cpus) or not {*server_cpus, *load_cpus} <= os.sched_getaffinity(0):
        raise BenchError("server and load need different cores of this machine: --server-cpus, --load-cpus")
    return Plan(
        rounds=options.rounds or (1 if quick else 5),
        seconds=options.seconds or (1 if quick else 2),
        memberships=options.memberships or (100_000 if quick else 1_000_000),
        sizes=(*sizes, HUGE_SIZE) if options.huge else tuple(sizes),
        restarts=1 if quick else 3,
        server_cpus=server_cpus,
        load_cpus=load_cpus,
    )


def _described(plan: Plan) -> dict[str, str]:
    return {
        "run": f"{plan.rounds} rounds of {plan.seconds} s, interleaved, the others frozen",
        "loaded": f"{plan.memberships:,} memberships at 5 per identifier",
        "cores": f"servers (with their Redis) on {plan.server_cpus}, load on {plan.load_cpus}",
    }


def _need_redis(contestants: Sequence[Contestant]) -> bool:
    return any(isinstance(contestant, Peer) for contestant in contestants)


if __name__ == "__main__":
    sys.exit(main())
