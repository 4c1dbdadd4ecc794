"""`python -m bench sustained [--minutes N]`: does it keep up?

Sends events with a new identifier each, as fast as the answers come, for minutes, and shows for each interval:
events/s, the journal's length, the records that the index does not hold yet, the loop's lateness, and the latency of a
query that is asked meanwhile. Flat columns are the point. With `--turns` it says too what the loop's late turns were
made of. Prints a table; judges nothing.
"""

import argparse
import http.client
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import ticks
from bench.contestants import Contestant, Segmentd
from bench.processes import BenchError, descendants, disk_bytes_of, memory_of
from bench.wrk import Load

BATCH: Final = 500
CONNECTIONS: Final = 4
INTERVAL_SECONDS: Final = 10
QUERY_SECONDS: Final = 0.02
_MIB: Final = 1 << 20
_QUERY: Final = json.dumps(
    {"query": '{ customer(fs_user_id: "live-00000000001") { audiences { edges { node { name } } } } }'}
).encode()
_LATE: Final = re.compile(r'segmentd_loop_lateness_seconds_bucket\{le="([^"]+)"\} (\S+)')


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench sustained", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--server-cpus", default="0,1", help="cores of the server and its checkpointer")
    parser.add_argument("--load-cpus", default="1")
    parser.add_argument("--turns", action="store_true", help="take the loop's late turns apart (bench.ticks)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        turns = Path(scratch) / "turns.tsv"
        program: Sequence[str | Path] = ["bench.ticks", turns] if options.turns else ["segmentd"]
        server = Segmentd("segmentd", "as it is delivered", {}, program)
        try:
            server.start(Path(scratch), [int(cpu) for cpu in options.server_cpus.split(",")])
            server.load(0, lambda: None)
            _measure(server, Path(scratch), options.minutes * 60, [int(cpu) for cpu in options.load_cpus.split(",")])
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()
        if options.turns:
            print("\n".join(ticks.taken_apart(turns)))
    return 0


def _measure(server: Contestant, folder: Path, seconds: float, cpus: Sequence[int]) -> None:
    ends = time.monotonic() + seconds
    script = ["distinct", BATCH, 0, 0, int((time.time() - seconds) * 1000) - 86_400_000, 0]
    load = Load(
        server.endpoint,
        "/v3/events",
        "events.lua",
        script,
        connections=CONNECTIONS,
        seconds=int(seconds),
        cpus=cpus,
    )
    print("seconds  events/s  journal MiB  unfolded  late p99.9 ms  query p99 ms  own MiB  index MiB", flush=True)
    before = metrics_of(server)
    began = last = time.monotonic()
    while time.monotonic() + INTERVAL_SECONDS < ends:
        latencies = ask(server, INTERVAL_SECONDS)
        now, metrics = time.monotonic(), metrics_of(server)
        print(
            f"{now - began:7.0f}  {(_events(metrics) - _events(before)) / (now - last):8,.0f}"
            f"  {metrics['segmentd_journal_bytes'] / _MIB:11.0f}  {metrics['segmentd_unfolded_records']:8.0f}"
            f"  {_late_ms(before, metrics):>13}  {sorted(latencies)[int(len(latencies) * 0.99)] * 1000:12.1f}"
            f"  {memory_of(descendants(server.pids()[0])).anonymous / _MIB:7.0f}  {disk_bytes_of(folder) / _MIB:9.0f}",
            flush=True,
        )
        before, last = metrics, now
    outcome = load.finish()
    print(f"{outcome.accepted * BATCH:,} events acknowledged, {outcome.errors} answers were not 202", flush=True)


def ask(server: Contestant, seconds: float) -> list[float]:
    """Latencies of queries, one at a time."""
    connection = http.client.HTTPConnection(server.endpoint.host, timeout=60)
    headers = {"x-api-key": server.key, "content-type": "application/json"}
    latencies: list[float] = []
    ends = time.monotonic() + seconds
    while (start := time.monotonic()) < ends:
        connection.request("POST", "/v3/graphql", _QUERY, headers)
        answer = json.loads(connection.getresponse().read())
        latencies.append(time.monotonic() - start)
        if "errors" in answer:
            raise BenchError(f"a query failed: {answer}")
        time.sleep(QUERY_SECONDS)
    connection.close()
    return latencies


def metrics_of(server: Contestant) -> dict[str, float]:
    """Value by name and labels, now."""
    connection = http.client.HTTPConnection(server.endpoint.host, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _events(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("segmentd_events_total"))


def _late_ms(before: dict[str, float], after: dict[str, float]) -> str:
    """The bucket that holds the 99.9th percentile of the loop's lateness in between."""
    counts = [
        (float(found[1]), value - before.get(name, 0.0))
        for name, value in after.items()
        if (found := _LATE.match(f"{name} {value}"))
    ]
    total = max((count for _, count in counts), default=0.0)
    reached = [bound for bound, count in sorted(counts) if count >= 0.999 * total]
    return f"<= {reached[0] * 1000:g}" if reached and total else "-"
