"""`python -m bench overload [--seconds N]`: what a crowd costs while it is there, and what is left of it after.

Three times as long as N: calm, then thousands of connections that send events as fast as the answers come and do not
wait when they are told to, then calm again. For each second: events taken and refused, memory, and the latency of a
query that is asked meanwhile. Prints a table; with --svg FILE it draws the curve too. Judges nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.contestants import Contestant, choose
from bench.processes import BenchError, memory_of
from bench.sustained import BATCH, ask, metrics_of
from bench.wrk import Load

INTERVAL_SECONDS: Final = 1.0
_MIB: Final = 1 << 20


class Sample(NamedTuple):
    """One interval."""

    seconds: float
    """Since the beginning."""
    taken_per_second: float
    refused_per_second: float
    own_mib: float
    query_p99_ms: float


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench overload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each of the three parts")
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--server-cpus", default="0,1", help="cores of the server and its checkpointer")
    parser.add_argument("--load-cpus", default="1")
    parser.add_argument("--svg", type=Path, help="file for the curve")
    options = parser.parse_args(arguments)
    server = choose(["segmentd"])[0]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        try:
            server.start(Path(scratch), _cpus(options.server_cpus))
            server.load(0, lambda: None)
            samples = _measure(server, options.seconds, options.connections, _cpus(options.load_cpus))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    if options.svg is not None:
        draw(options.svg, samples, options.seconds)
    return 0


def draw(path: Path, samples: Sequence[Sample], part_seconds: int) -> None:
    """The curve: three plots over the same seconds."""
    figure = Figure(figsize=(8.0, 8.0), layout="constrained")
    rows: list[Axes] = list(figure.subplots(3, 1, sharex=True))
    seconds = [sample.seconds for sample in samples]
    rows[0].plot(seconds, [sample.taken_per_second for sample in samples], label="events taken/s")
    rows[0].plot(seconds, [sample.refused_per_second for sample in samples], label="events refused with 503/s")
    rows[1].plot(seconds, [sample.own_mib for sample in samples], label="memory of the serving process, MiB")
    rows[2].plot(seconds, [sample.query_p99_ms for sample in samples], label="query p99, ms")
    for axes in rows:
        axes.axvspan(part_seconds, 2 * part_seconds, alpha=0.1)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
    rows[2].set_xlabel("seconds; the crowd is there where it is shaded")
    figure.savefig(path, metadata={"Date": None})


def _measure(server: Contestant, seconds: int, connections: int, cpus: Sequence[int]) -> list[Sample]:
    print("seconds  taken/s  refused/s  own MiB  query p99 ms", flush=True)
    began = time.monotonic()
    samples = _watch(server, began, seconds)
    script = ["distinct", BATCH, 0, 0, int((time.time() - seconds) * 1000) - 86_400_000, 0]
    load = Load(
        server.endpoint, "/v3/events", "events.lua", script, connections=connections, seconds=seconds, cpus=cpus
    )
    samples += _watch(server, began, 2 * seconds)
    outcome = load.finish()
    samples += _watch(server, began, 3 * seconds)
    print(f"{outcome.accepted:,} requests of {BATCH} events taken, {outcome.refused:,} refused, ", end="")
    print(f"{outcome.errors} lost, from {connections} connections", flush=True)
    return samples


def _watch(server: Contestant, began: float, until: float) -> list[Sample]:
    """Samples up to `until` seconds after `began`."""
    samples: list[Sample] = []
    before, last = metrics_of(server), time.monotonic()
    while time.monotonic() - began < until:
        latencies = sorted(ask(server, INTERVAL_SECONDS))
        metrics, now = metrics_of(server), time.monotonic()
        taken, refused = (
            (_events(metrics, outcome) - _events(before, outcome)) / (now - last) for outcome in ("accepted", "refused")
        )
        own = memory_of([server.pids()[0]]).anonymous / _MIB
        sample = Sample(now - began, taken, refused, own, latencies[int(len(latencies) * 0.99)] * 1000)
        print("{:7.0f}  {:7,.0f}  {:9,.0f}  {:7.0f}  {:12.1f}".format(*sample), flush=True)
        samples.append(sample)
        before, last = metrics, now
    return samples


def _events(metrics: dict[str, float], outcome: str) -> float:
    named = f'outcome="{outcome}"'
    return sum(value for name, value in metrics.items() if name.startswith("segmentd_events_total") and named in name)


def _cpus(text: str) -> list[int]:
    return [int(cpu) for cpu in text.split(",")]
