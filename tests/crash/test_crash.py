"""A server that is killed under load, at random moments and at named points, keeps every promise that it made.

`CRASH_SEED` repeats a run's requests and moments; `CRASH_LIVES` sets how many times each test lets the server live and
die (the default keeps the suite short).
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.crash.inspection import inspect
from tests.crash.load import Clients, create_segments
from tests.crash.model import Model
from tests.serverprocess import ServerDiedError, ServerProcess, log_shown

SEED = int(os.environ.get("CRASH_SEED", Random().randrange(2**32)))
LIVES_RANDOM = int(os.environ.get("CRASH_LIVES", "5"))
LIVES_NAMED = int(os.environ.get("CRASH_LIVES", "2"))

LIFE_SECONDS_MAX = 1.2
SIGKILLED = -9

# Checkpoints in small steps, all the time: a crash shall meet every state of one.
SECTIONS = {
    "storage": {
        "checkpoint_journal_bytes": 16_384,
        "checkpoint_seconds_max": 0.2,
        "checkpoint_batch_changes_max": 200,
    }
}

# How many times a point is passed before the process dies there: at most this many times.
POINTS = {
    "before_commit": 60,
    "after_commit_before_merge": 60,
    "after_merge_before_reply": 60,
    "during_checkpoint": 8,
}


class Crashes:
    """One data folder, the clients that write to it, and what must be in it."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.random = Random(seed)
        self.server = ServerProcess(folder, SECTIONS)
        self.model = Model()
        self._clients = Clients(seed)
        self._inspected: set[str] = set()
        with self.server:
            create_segments(self.server)
            self.server.terminate()

    def live_and_be_killed(self) -> None:
        """Start, inspect, take load, and be killed at a random moment."""
        self.server.start()
        self.inspect()
        with self._clients.sending(self.server, self.model):
            time.sleep(self.random.uniform(0, LIFE_SECONDS_MAX))
            self.server.kill()
        self.check()

    def live_until(self, point: str) -> None:
        """Start, inspect, take load, and die at `point` of its own accord."""
        hits = self.random.randint(1, POINTS[point])
        try:
            self.server.start({"SEGMENTD_FAILPOINT": f"{point}:{hits}"})
            self.inspect()
            with self._clients.sending(self.server, self.model):
                returncode = self.server.wait()
        except ServerDiedError as death:
            # The recovery, too, passes points; what it left behind is inspected in the next life.
            returncode = death.returncode
        except httpx.TransportError:
            # A checkpoint may begin during the inspection.
            returncode = self.server.wait()
        assert returncode == SIGKILLED, f"expected to die at {point}:{hits}"
        self.check()

    def live_and_be_stopped(self) -> None:
        """Start, inspect, take load, and be asked to stop: whatever is applied must have been acknowledged."""
        self.server.start()
        self.inspect()
        with self._clients.sending(self.server, self.model):
            time.sleep(self.random.uniform(0, LIFE_SECONDS_MAX))
            self.server.terminate()
        # A request on a connection that was closed as idle was never read, so it counts as refused.
        self.model.refused += self.model.unknown
        self.model.unknown.clear()
        self.check()

    def live_to_the_end(self) -> None:
        """Start, inspect everything ever sent, stop in peace, and be clean."""
        self.server.start()
        self._inspected.clear()
        self.inspect()
        self.server.terminate()
        self.check()
        assert self.model.size("marker") > 0, "no request was ever acknowledged; the test showed nothing"

    def inspect(self) -> None:
        touched = set(self.model.winners) - self._inspected
        inspect(self.server, self.model, self._clients.segment.model, touched)
        # What churns is asked for again each time; a marker never changes after its request.
        self._inspected = {each for each in self.model.winners if "churn" not in each}

    def told(self) -> str:
        """What the clients know by now; shown with a failed test."""
        model = self.model
        return f"{len(model.winners)} identifiers, {len(model.unknown)} requests unknown, {len(model.refused)} refused"

    def check(self) -> None:
        print(self.told())
        checked = self.server.check()
        assert checked.returncode == 0, f"segmentd check:\n{checked.stdout}{checked.stderr}"


@pytest.fixture
def crashes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crashes]:
    seed = f"{SEED} {request.node.name}"
    print(f"CRASH_SEED={SEED}")
    crashes = Crashes(tmp_path, seed)
    with log_shown(crashes.server):
        yield crashes
        crashes.server.close()


def test_every_promise_survives_a_kill_at_any_moment(crashes: Crashes) -> None:
    for _ in range(LIVES_RANDOM):
        crashes.live_and_be_killed()
    crashes.live_to_the_end()


@pytest.mark.parametrize("point", POINTS)
def test_every_promise_survives_a_death_at_a_named_point(crashes: Crashes, point: str) -> None:
    for _ in range(LIVES_NAMED):
        crashes.live_until(point)
    crashes.live_to_the_end()


def test_a_stop_under_load_leaves_nothing_applied_that_was_not_acknowledged(crashes: Crashes) -> None:
    for _ in range(LIVES_NAMED):
        crashes.live_and_be_stopped()
    crashes.live_to_the_end()
