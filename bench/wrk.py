"""Runs wrk with one of the Lua scripts and reads what it found.

Owns the command line of wrk and the form of its outcome. Never decides what is measured.

Invariants:
1. wrk runs with one thread on the load's cores; the server's cores are never used.
2. A wrong answer makes the run worthless: `Load.finish` raises.
3. wrk adds the samples that a stalled connection could not take (its correction for coordinated omission), for every
   contestant alike.
"""

import re
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import BenchError, Endpoint

LUA: Final = Path(__file__).parent / "lua"
_OUTCOME: Final = re.compile(r"^OUTCOME (\{.*\})$", re.MULTILINE)
# wrk is given this much longer than it was asked to run before it is ended.
GRACE_SECONDS: Final = 60.0
ANSWER_SECONDS_MAX: Final = 30


class Outcome(msgspec.Struct, frozen=True):
    """What one run of wrk saw. Latencies in microseconds."""

    accepted: int
    refused: int
    wrong: int
    wrong_sample: str
    seconds: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    errors_connect: int
    errors_read: int
    errors_write: int
    errors_timeout: int

    @property
    def errors(self) -> int:
        """Connections and answers that were lost, whatever the reason."""
        return self.errors_connect + self.errors_read + self.errors_write + self.errors_timeout

    @property
    def per_second(self) -> float:
        """Checked answers a second."""
        return self.accepted / self.seconds


class Load:
    """A running wrk."""

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        script: str,
        arguments: Sequence[object],
        *,
        connections: int,
        seconds: int,
        cpus: Sequence[int],
    ) -> None:
        """path: of the URL. script: file in `lua/`. arguments: for the script. seconds: whole, wrk knows no others."""
        self._seconds = seconds
        self._what = f"{path} with {connections} connections, {script} {' '.join(map(str, arguments[-6:]))}"
        command = ["taskset", "-c", ",".join(map(str, cpus)), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", f"{ANSWER_SECONDS_MAX}s", "-s", str(LUA / script)]
        command += ["-H", f"x-api-key: {endpoint.public_key}", "-H", "content-type: application/json"]
        command += [endpoint.url + path, "--", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self) -> Outcome:
        """Wait for its end. Raises BenchError if wrk failed or any answer was wrong."""
        try:
            output, _ = self._process.communicate(timeout=self._seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.cancel()
            raise BenchError(f"{self._what}: wrk did not end") from None
        outcome = parse_outcome(output, self._what)
        if outcome.wrong:
            raise BenchError(f"{self._what}: {outcome.wrong} wrong answers, such as: {outcome.wrong_sample}")
        return outcome

    def cancel(self) -> None:
        """End it without looking at what it found."""
        self._process.kill()
        self._process.communicate()


def parse_outcome(output: str, what: str) -> Outcome:
    """The outcome in wrk's output. Raises BenchError where there is none."""
    found = _OUTCOME.search(output)
    if not found:
        raise BenchError(f"{what}: wrk failed: {output.strip()[-2000:]}")
    return msgspec.json.decode(found[1], type=Outcome)


class LoadUse:
    """How busy the load generator was: the share of its core that ended loads used since this was made.

    Near 1 it was the bottleneck and the server could have done more.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._used = self._children_seconds()

    def share(self) -> float:
        """0..cores. Counts only children that have ended."""
        return (self._children_seconds() - self._used) / max(time.monotonic() - self._started, 1e-9)

    @staticmethod
    def _children_seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
