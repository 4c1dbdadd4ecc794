"""`python -m bench.ticks FILE serve ...`: segmentd with a look at where each long turn of its event loop goes.

Owns an instrument of Trio's that writes one line of tab-separated milliseconds to FILE for each turn that took
`LONG_MS` or more: the moment, how long it took, processor time of the loop's thread, its wait for a core (run delay in
/proc/self/task/TID/schedstat), garbage collection. What is left of a turn is its wait for the interpreter's lock or the
disk. `taken_apart` reads such a file. The server is the same in everything else.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import trio

LONG_MS: Final = 5.0
LATE_MS: Final = 10.0
_NS_PER_MS: Final = 1e6


class Turn(NamedTuple):
    """One turn of the loop, from the end of one wait for I/O to the next; in milliseconds, `at` since the start."""

    at: float
    took: float
    processor: float
    waited_for_core: float
    collected: float

    @property
    def rest(self) -> float:
        return max(0.0, self.took - self.processor - self.waited_for_core)


class Turns(trio.abc.Instrument):
    """Measures turns. Two small reads of /proc for each."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._schedule = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._origin = time.perf_counter()
        self._woke: float | None = None
        self._before = (0.0, 0.0)
        self._collecting = self._collected = 0.0
        gc.callbacks.append(self._on_collection)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        self._woke, self._before, self._collected = time.perf_counter(), self._scheduled(), 0.0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        if self._woke is None:
            return
        took = (time.perf_counter() - self._woke) * 1000
        if took >= LONG_MS:
            ran, delayed = (after - before for after, before in zip(self._scheduled(), self._before, strict=True))
            turn = Turn((self._woke - self._origin) * 1000, took, ran, delayed, self._collected * 1000)
            print(*(f"{part:.2f}" for part in turn), sep="\t", file=self._out)

    def _scheduled(self) -> tuple[float, float]:
        """(processor time, run delay) of this thread so far, in milliseconds."""
        ran, delayed, _ = os.pread(self._schedule, 64, 0).split()
        return int(ran) / _NS_PER_MS, int(delayed) / _NS_PER_MS

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002 - the interpreter's signature
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self._collected += time.perf_counter() - self._collecting


def taken_apart(path: Path, skip_ms: float = 1000.0) -> list[str]:
    """Lines that say what the late turns (`LATE_MS` or more) of a run were made of. skip_ms: the start is left out."""
    turns = [Turn(*map(float, line.split("\t"))) for line in path.read_text(encoding="utf-8").splitlines()]
    late = [turn for turn in turns if turn.took >= LATE_MS and turn.at >= skip_ms]
    if not late:
        return [f"no turn of the loop took {LATE_MS:g} ms"]
    parts: dict[str, Callable[[Turn], float]] = {
        "processor time of its own": lambda turn: turn.processor,
        "of it garbage collection": lambda turn: turn.collected,
        "waiting for a core": lambda turn: turn.waited_for_core,
        "waiting for anything else": lambda turn: turn.rest,
    }
    lines = [
        f"{len(late)} turns of the loop took {LATE_MS:g} ms or more, the longest {max(t.took for t in late):.1f} ms:"
    ]
    for name, part in parts.items():
        values = sorted(map(part, late))
        lines.append(
            f"  {name:27} median {values[len(values) // 2]:5.1f} ms, largest {values[-1]:5.1f} ms,"
            f" {sum(value >= LATE_MS for value in values)} of {LATE_MS:g} ms or more"
        )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Runs segmentd's command line under the instrument. arguments: FILE, then segmentd's own."""
    from segmentd.cli import main as segmentd  # noqa: PLC0415 - so that reading a file loads no server

    with Path(arguments[0]).open("w", buffering=1, encoding="utf-8") as out:
        setattr(trio, "run", partial(trio.run, instruments=[Turns(out)]))  # noqa: B010 - types forbid it otherwise
        sys.argv[1:] = arguments[1:]
        segmentd()


if __name__ == "__main__":
    main(sys.argv[1:])
