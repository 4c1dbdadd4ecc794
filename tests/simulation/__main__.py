"""Replay one seed, run some, or soak: run seeds until stopped, or until one breaks a promise."""

import argparse
import itertools
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from types import FrameType

from tests.simulation.chance import FAULTS
from tests.simulation.simulate import SimulationError, simulate

_TELL_SECONDS = 10


class Tally:
    """What the seeds so far have shown."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.seeds = self.lives = self.requests = 0
        self.virtual_seconds = 0.0
        self._began = time.perf_counter()

    def run(self, seeds: Iterable[int]) -> None:
        """Run these seeds. Raises SimulationError."""
        for seed in seeds:
            outcome = simulate(seed)
            self.seeds += 1
            self.lives += outcome.lives
            self.requests += outcome.requests
            self.virtual_seconds += outcome.virtual_seconds
            self.faults += outcome.faults

    def summary(self) -> str:
        """Seeds, their rate, and the faults that struck, by kind."""
        seconds = time.perf_counter() - self._began
        never = [name for name in FAULTS if not self.faults[name]]
        rows = [f"  {count:>9,}  {name}: {FAULTS[name]}" for name, count in self.faults.most_common()]
        return "\n".join(
            [
                f"{self.seeds:,} seeds, {self.lives:,} lives, {self.requests:,} requests,"
                f" {self.faults.total():,} faults in {self.virtual_seconds:,.0f} virtual and {seconds:,.0f} real"
                f" seconds ({self.seeds / seconds:.1f} seeds/s)",
                *rows,
                *([f"  never struck: {', '.join(never)}"] if never else []),
            ]
        )


def main() -> int:
    """The command line. The status is 1 when a seed broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this seed and print all that happened")
    parser.add_argument("--from", dest="first", type=int, help="the first seed of many; without it, by chance")
    parser.add_argument("--count", type=int, help="how many seeds; without it, until stopped")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed)
    # Whoever soaks wants to see seeds that nobody has seen.
    first = secrets.randbelow(2**40) if arguments.first is None else arguments.first
    return _many(first, arguments.count)


def _replay(seed: int) -> int:
    try:
        outcome = simulate(seed, keep=True)
    except SimulationError as error:
        print(error)
        return 1
    print("\n".join(outcome.lines or []))
    print(f"seed {seed} keeps every promise; digest {outcome.digest}")
    return 0


def _many(first: int, count: int | None) -> int:
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    tally, told = Tally(), time.perf_counter()
    try:
        for seed in itertools.count(first) if count is None else range(first, first + count):
            if stopped:
                break
            tally.run([seed])
            if time.perf_counter() - told > _TELL_SECONDS:
                told = time.perf_counter()
                print(tally.summary(), flush=True)
    except SimulationError as error:
        print(error)
        return 1
    finally:
        print(tally.summary(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
