"""`python -m bench waits`: behind how much work of the event loop does a query wait while events come?

Counts in processor time of the loop's thread, which hardly depends on what else the machine does: between two looks of
the reactor whoever has asked waits, so a query that comes at a random moment waits for the rest of such a gap. Queries
are asked all the time by 16 connections, or there would be nothing to look for. Run it on the code before and after a
change: `python -m bench.waits FILE serve ...` is the server with the looks counted, and the same in everything else.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.arena import Arena
from bench.contestants import Segmentd
from bench.processes import BenchError, send_signal
from bench.work import MIXED

MEMBERSHIPS: Final = 100_000
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_WRITTEN_SECONDS_MAX: Final = 10.0


class Looks:
    """Counts the gaps between turns of the reactor; a signal (SIGUSR2) writes them to a file and begins anew."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._gaps: list[float] = []
        self._looked = time.thread_time()
        signal.signal(signal.SIGUSR2, self._write)

    def around(self, turn: Callable[[object], None]) -> Callable[[object], None]:
        """`turn`, counted."""

        def counted(reactor: object) -> None:
            self._gaps.append((time.thread_time() - self._looked) * 1000)
            turn(reactor)
            self._looked = time.thread_time()

        return counted

    def _write(self, *_: object) -> None:
        gaps, self._gaps = self._gaps, []
        fresh = self._out.with_suffix(".new")
        fresh.write_text("".join(f"{gap:.3f}\n" for gap in gaps), encoding="utf-8")
        fresh.rename(self._out)
        self._looked = time.thread_time()


def percentile(gaps: Sequence[float], per_cent: float) -> float:
    """What so many of all queries that come at random moments do not wait longer for; same unit as `gaps`."""
    ascending = sorted(gaps)
    late_share = 1 - per_cent / 100
    # Of a gap g, the moments from which one waits longer than w are the first g - w.
    rest, over, count = late_share * sum(ascending), 0.0, 0
    for gap in reversed(ascending):
        if over - count * gap >= rest:
            break
        over, count = over + gap, count + 1
    return max(0.0, (over - rest) / count) if count else 0.0


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench waits", description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement, whole")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        out = Path(scratch) / "looks"
        server = Segmentd("segmentd", "with its looks counted", {}, ["bench.waits", out])
        arena = Arena(Path(scratch), (0,), (1,), options.seconds)
        try:
            server.start(Path(scratch) / "segmentd", (0,))
            arena.load(server, MEMBERSHIPS)
            print("wait in ms of processor time" + "".join(f"  p{number:g}" for number in PERCENTILES) + "  longest")
            arena.mixed(server, MIXED[0], MEMBERSHIPS)  # what is done once is not what queries wait for
            for work in MIXED * options.rounds:
                gaps_of(server, out)
                arena.mixed(server, work, MEMBERSHIPS)
                gaps = gaps_of(server, out)
                waits = "".join(f"  {percentile(gaps, number):.2f}" for number in PERCENTILES)
                print(f"{work.name:27}{waits}  {max(gaps, default=0.0):.2f}", flush=True)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    return 0


def gaps_of(server: Segmentd, out: Path) -> list[float]:
    """The gaps since the last time, in milliseconds. Raises BenchError."""
    out.unlink(missing_ok=True)
    send_signal(server.pids()[:1], signal.SIGUSR2)
    deadline = time.monotonic() + _WRITTEN_SECONDS_MAX
    while not out.exists():
        if time.monotonic() > deadline:
            raise BenchError("the server does not write what it counted")
        time.sleep(0.01)
    return [float(line) for line in out.read_text(encoding="utf-8").splitlines()]


def serve(arguments: Sequence[str]) -> None:
    """segmentd's command line, with the looks counted. arguments: FILE, then segmentd's own."""
    from segmentd.cli import main as segmentd  # noqa: PLC0415 - so that the part alone loads no server
    from segmentd.http.reactor import Reactor  # noqa: PLC0415

    looks = Looks(Path(arguments[0]))
    setattr(Reactor, "_turn", looks.around(Reactor._turn))  # type: ignore[arg-type]  # noqa: B010
    sys.argv[1:] = arguments[1:]
    segmentd()


if __name__ == "__main__":
    serve(sys.argv[1:])
