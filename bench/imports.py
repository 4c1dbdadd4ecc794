"""`python -m bench imports [--rows N]`: whole lists into a running server.

Measures, for a first import, the same list at a later T, the same file once more, and one with 10 % change: rows/s from
the first byte sent to the end of the job, processor time of the server (queries included) and of its children (stager,
scans, checkpointer), memory of all beyond what they held, and the latency of queries before and meanwhile (one
connection, one query in so many ms). Prints a table; judges nothing.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.processes import (
    Child,
    cpu_seconds_of,
    descendants,
    ended_children_seconds_of,
    memory_of,
    wait_until_ready,
)
from tests.serverprocess import PRIVATE_KEY, ServerProcess

QUERY_SECONDS = 0.005
MEMORY_SECONDS = 0.1
QUIET_SECONDS = 3.0
_MIB = 1 << 20
_QUERY = {
    "query": '{ customer(fs_user_id: "user-000000001") { audiences(subset: ["vip"]) { edges { node { name } } } } }'
}


class Probe:
    """Asks one query again and again, and looks at memory, while a block runs."""

    def __init__(self, host: str, pid: int) -> None:
        self._host, self._pid = host, pid
        self.seconds: list[float] = []
        self.peak_bytes = 0
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator["Probe"]:
        """Ask meanwhile."""
        threads = [threading.Thread(target=target) for target in (self._ask, self._weigh)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        while not self._stop.wait(QUERY_SECONDS):
            start = time.perf_counter()
            asked = request(connection, "POST", "/v3/graphql", json.dumps(_QUERY).encode(), "application/json")
            self.seconds.append(time.perf_counter() - start)
            assert "errors" not in asked, asked

    def _weigh(self) -> None:
        while not self._stop.wait(MEMORY_SECONDS):
            # A child may end between being listed and being looked at.
            with contextlib.suppress(OSError, KeyError):
                self.peak_bytes = max(self.peak_bytes, memory_of(descendants(self._pid)).anonymous)

    def p99_ms(self) -> float:
        """Of all queries."""
        return statistics.quantiles(self.seconds, n=100)[98] * 1000


def request(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, kind: str = ""
) -> dict[str, Any]:
    """One request; the JSON of its answer."""
    headers = {"x-api-key": PRIVATE_KEY, **({"content-type": kind} if kind else {})}
    if hasattr(body, "fileno"):
        headers["content-length"] = str(os.fstat(body.fileno()).st_size)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    assert answer.status < 300, found
    return found


def write_list(path: Path, rows: int, first: int) -> None:
    """`rows` members from number `first` on, in no order."""
    with path.open("w") as out:
        out.write("fs_user_id\n")
        out.writelines(f"user-{first + number * 7_919 % rows:09d}\n" for number in range(rows))


def run_import(connection: http.client.HTTPConnection, path: Path, as_of: int) -> dict[str, Any]:
    """Send a list and wait for its end."""
    with path.open("rb") as file:
        job = request(connection, "POST", f"/v3/audiences/vip/imports?as_of={as_of}", file, "text/csv")
    while job["state"] not in {"completed", "failed", "cancelled"}:
        time.sleep(0.02)
        job = request(connection, "GET", f"/v3/imports/{job['id']}")
    assert job["state"] == "completed", job["reason"]
    return job


def processor_seconds(pid: int) -> tuple[float, float]:
    """(of the server, of its children, ended ones too)."""
    children = [child for child in descendants(pid) if child != pid]
    return cpu_seconds_of([pid]), cpu_seconds_of(children) + ended_children_seconds_of(pid)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench imports", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows: int = parser.parse_args(arguments).rows
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        whole, changed = folder / "whole.csv", folder / "changed.csv"
        write_list(whole, rows, 0)
        write_list(changed, rows, rows // 10)
        command = ServerProcess(folder).command("serve", "--listen", "127.0.0.1:0")
        server = Child(command, folder / "log", sorted(os.sched_getaffinity(0)))
        try:
            url = server.wait_for_url()
            wait_until_ready(url, server)
            measure(url.removeprefix("http://"), server, whole, changed, rows)
        finally:
            server.stop()
    return 0


def measure(host: str, server: Child, whole: Path, changed: Path, rows: int) -> None:
    """Run all imports and print a line for each."""
    connection = http.client.HTTPConnection(host, timeout=600)
    definition = json.dumps({"definition": {"external": {"external_audience_id": "vip"}}}).encode()
    request(connection, "PUT", "/v3/segments/vip", definition, "application/json")
    with Probe(host, server.pid).running() as quiet:
        time.sleep(QUIET_SECONDS)
    print(f"queries without an import: p99 {quiet.p99_ms():.2f} ms")
    works = [
        ("first", whole, 1_000),
        ("later T", whole, 2_000),
        ("again", whole, 2_000),
        ("10 % changed", changed, 3_000),
    ]
    for name, path, as_of in works:
        with Probe(host, server.pid).running() as probe:
            start, (own, others) = time.perf_counter(), processor_seconds(server.pid)
            job = run_import(connection, path, as_of)
            seconds = time.perf_counter() - start
        own, others = (now - then for now, then in zip(processor_seconds(server.pid), (own, others), strict=True))
        after = memory_of(descendants(server.pid)).anonymous
        counts = f"+{job['qualified']} -{job['disqualified']} ={job['unchanged']}"
        print(
            f"{name:>13}: {rows / seconds:>9,.0f} rows/s in {seconds:5.1f} s, processor {own:5.1f} + {others:5.1f} s,"
            f" queries p99 {probe.p99_ms():6.2f} ms, memory at its peak {(probe.peak_bytes - after) / _MIB:5.0f} MiB"
            f" above what is held after, {counts}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
