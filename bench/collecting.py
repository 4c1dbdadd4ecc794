"""`python -m bench collecting`: how long do garbage collections stop the event loop?

A real server is given what its collector has to look through, one thing after the other: a full cache of documents with
plans, one of documents without, thousands of idle connections of both roads. After each the loop's thread collects, and
counts in processor time, which hardly depends on what else the machine does. Beside it stands the longest collection
that came of its own accord since the thing before. What the server froze at its start is not among the objects.
"""

import argparse
import contextlib
import gc
import json
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.contestants import Segmentd
from bench.processes import BenchError, Endpoint, send_signal

DOCUMENTS: Final = 1_024
FIELDS: Final = (
    "name revision description is_ready size metadata external_audience_id state qualified_at updated_at __typename"
)
COLLECTIONS: Final = 9
_WRITTEN_SECONDS_MAX: Final = 30.0
_LEFT_SECONDS: Final = 3.0
_SOCKET_SECONDS_MAX: Final = 30.0
_ANSWER_BYTES_MAX: Final = 65_536


class Collected(NamedTuple):
    """objects: that collections look at. took_ms: processor time of a full one, median.

    longest_ms: of those that nobody asked for since the last time.
    """

    objects: int
    took_ms: float
    longest_ms: float


class Collections:
    """Counts the collections of this process."""

    def __init__(self) -> None:
        self._began = self.longest_ms = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.longest_ms = max(self.longest_ms, (time.thread_time() - self._began) * 1000)


def collected(collections: Collections) -> Collected:
    """Collects on this thread."""
    longest_ms = collections.longest_ms
    # The first ones find garbage, and let go of tuples and dictionaries that cannot be part of a circle.
    for _ in range(3):
        gc.collect()
    took = []
    for _ in range(COLLECTIONS):
        began = time.thread_time()
        gc.collect()
        took.append((time.thread_time() - began) * 1000)
    collections.longest_ms = 0.0
    return Collected(len(gc.get_objects()), statistics.median(took), longest_ms)


def document(number: int, *, planned: bool) -> str:
    """One of many different texts of 27 fields, as a client may write them."""
    directive = "" if planned else " @skip(if: false)"
    return (
        f"query Q{number}($user: String, $subset: [String]) {{customer{number}: customer(fs_user_id: $user) "
        f"{{audiences(subset: $subset) {{totalCount{directive} "
        f"pageInfo {{hasNextPage hasPreviousPage startCursor endCursor}} "
        f"edges {{cursor node {{{FIELDS}}}}} short: edges {{node {{a: name b: state c: revision}}}}}}}}}}"
    )


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench collecting", description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000, help="idle ones, of either road")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        out = Path(scratch) / "collected"
        server = Segmentd("segmentd", "with its collections counted", {}, ["bench.collecting", out])
        try:
            server.start(Path(scratch) / "segmentd", (0,))
            print("| what there is besides | objects | a full collection | longest that came |\n|---|---:|---:|---:|")
            for name in stages(server.endpoint, options.connections):
                found = found_by(server, out)
                print(
                    f"| {name} | {found.objects:,} | {found.took_ms:.2f} ms | {found.longest_ms:.1f} ms |", flush=True
                )
        except (BenchError, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    return 0


def stages(endpoint: Endpoint, connections: int) -> Iterator[str]:
    """Does one thing after the other, and names it when it is there."""
    yield "nothing"
    for planned in (True, False):
        with opened(endpoint) as connection:
            for number in range(DOCUMENTS):
                exchange(connection, query(endpoint, document(number, planned=planned)))
        yield f"{DOCUMENTS:,} documents {'with' if planned else 'without'} plans, of 27 fields"
    requests = {
        "plain": query(endpoint, "{audiences {totalCount}}"),
        "whole": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    }
    for road, request in requests.items():
        with contextlib.ExitStack() as stack:
            for _ in range(connections):
                exchange(stack.enter_context(opened(endpoint)), request)
            yield f"{connections:,} idle connections, {road} road"
        time.sleep(_LEFT_SECONDS)
        yield "after they have left"


@contextlib.contextmanager
def opened(endpoint: Endpoint) -> Iterator[socket.socket]:
    """A connection."""
    host, _, port = endpoint.host.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_SOCKET_SECONDS_MAX) as connection:
        yield connection


def query(endpoint: Endpoint, text: str) -> bytes:
    """A request."""
    variables = {"user": "u-1", "subset": ["a", "b"]}
    body = json.dumps({"query": text, "variables": variables}).encode()
    head = [
        "POST /v3/graphql HTTP/1.1",
        "host: x",
        f"x-api-key: {endpoint.public_key}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def exchange(connection: socket.socket, request: bytes) -> None:
    """Ask, and have a whole answer. Raises BenchError."""
    connection.sendall(request)
    answer = b""
    while not _is_whole(answer):
        came = connection.recv(_ANSWER_BYTES_MAX)
        if not came:
            raise BenchError("a connection ended")
        answer += came
    if not answer.startswith(b"HTTP/1.1 200") or b'"errors"' in answer:
        raise BenchError(f"not what was asked for: {answer!r}")


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    return len(body) >= sum(int(value) for name, _, value in lines if name == b"content-length")


def found_by(server: Segmentd, out: Path) -> Collected:
    """What the server's collections took now. Raises BenchError."""
    out.unlink(missing_ok=True)
    send_signal(server.pids()[:1], signal.SIGUSR2)
    deadline = time.monotonic() + _WRITTEN_SECONDS_MAX
    while not out.exists():
        if time.monotonic() > deadline:
            raise BenchError("the server does not write what it counted")
        time.sleep(0.01)
    objects, *milliseconds = out.read_text(encoding="utf-8").split()
    return Collected(int(objects), *map(float, milliseconds))


def serve(arguments: Sequence[str]) -> None:
    """segmentd's command line; a signal (SIGUSR2) makes it collect. arguments: FILE, then segmentd's own."""
    from segmentd.cli import main as segmentd  # noqa: PLC0415 - so that the part alone loads no server

    out, collections = Path(arguments[0]), Collections()

    def collect(*_: object) -> None:
        found = collected(collections)
        fresh = out.with_suffix(".new")
        fresh.write_text(f"{found.objects} {found.took_ms} {found.longest_ms}", encoding="utf-8")
        fresh.rename(out)

    signal.signal(signal.SIGUSR2, collect)
    sys.argv[1:] = arguments[1:]
    segmentd()


if __name__ == "__main__":
    serve(sys.argv[1:])
