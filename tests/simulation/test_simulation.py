"""Every promise is kept under every seed; the same seed does the same again; and mistakes are found.

`SIMULATION_SEEDS` says how many seeds the suite runs, the first ones; `make soak` runs others until it is stopped.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.simulation.__main__ import Tally
from tests.simulation.bugs import BUGS
from tests.simulation.chance import FAULTS
from tests.simulation.simulate import SimulationError, simulate
from tests.sources import ROOT

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "1000"))
SEEDS_TO_FIND_A_BUG_MAX = 1500
"""The rarest of them shows within a fifth of these."""
BLOCK = 250


@pytest.fixture(scope="module")
def tally() -> Tally:
    """What all blocks together have shown."""
    return Tally()


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_is_kept_under_every_seed(tally: Tally, first: int) -> None:
    tally.run(range(first, min(first + BLOCK, SEEDS)))
    assert tally.requests > tally.seeds


def test_every_fault_has_struck(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    if tally.seeds < BLOCK:
        tally.run(range(BLOCK))
    assert {name for name in FAULTS if not tally.faults[name]} == set()
    with capsys.disabled():
        print(f"\n{tally.summary()}")


def test_the_same_seed_does_the_same_again() -> None:
    for seed in range(5):
        first, second = simulate(seed, keep=True), simulate(seed, keep=True)
        assert first.lines == second.lines
        assert first.digest == second.digest
    assert simulate(1).digest != simulate(2).digest


def test_the_same_seed_does_the_same_in_another_process() -> None:
    # Another hash seed orders sets another way, and nothing may hang on that.
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    for seed in (3, 4):
        command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
        replayed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert replayed.stdout.rstrip().endswith(simulate(seed).digest)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_mistake_is_found(bug: Callable[[], AbstractContextManager[object]]) -> None:
    with pytest.raises(SimulationError, match=r"replay: python -m tests\.simulation --seed \d+$"):
        _run_all(bug)


def _run_all(bug: Callable[[], AbstractContextManager[object]]) -> None:
    for seed in range(SEEDS_TO_FIND_A_BUG_MAX):
        simulate(seed, bug=bug)
