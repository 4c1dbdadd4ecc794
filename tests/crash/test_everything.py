"""A server that is killed while events, segments, whole lists, backups and folds go on together keeps its promises.

`CRASH_SEED` repeats a run's requests and moments; `CRASH_LIVES` sets how often the long test lets the server die.
"""

import os
import time
from pathlib import Path
from random import Random

import pytest

from tests.crash.everything import Everything, wait_for_backups
from tests.serverprocess import STOP_SECONDS_MAX, Sections, ServerProcess, log_shown

SEED = int(os.environ.get("CRASH_SEED", Random().randrange(2**32)))
LIVES_SHORT = 3
LIVES_LONG = int(os.environ.get("CRASH_LIVES", "40"))
LIFE_SECONDS_MAX = 1.5

# Folds in small steps, all the time: a death shall meet every state of one.
SECTIONS: Sections = {
    "imports": {"slice_changes": 200},
    "storage": {
        "checkpoint_journal_bytes": 65_536,
        "checkpoint_seconds_max": 0.2,
        "checkpoint_batch_changes_max": 1_000,
    },
}


def live_and_die(folder: Path, followers: int, lives: int) -> None:
    print(f"CRASH_SEED={SEED}")
    seed = f"{SEED} everything {followers}"
    random = Random(seed)
    server = ServerProcess(folder, {**SECTIONS, "server": {"followers": followers}})
    everything = Everything(folder, seed, folder / "backups")
    with log_shown(server), server:
        everything.begin(server)
        for life in range(lives):
            with everything.sending(server):
                if not everything.backups.whole and life == lives - 1:
                    wait_for_backups(everything, 1, STOP_SECONDS_MAX)
                time.sleep(random.uniform(0.05, LIFE_SECONDS_MAX))
                server.kill()
            assert_clean(server)
            server.start()
            everything.inspect(server)
        everything.inspect_end(server)
        server.terminate()
        assert_clean(server)
        everything.inspect_backup()
    print(
        f"{lives} deaths, {len(everything.model.winners)} identifiers, {len(everything.backups.whole)} backups, ",
        end="",
    )
    print(f"{len(everything.lists.decisions.lists)} lists")


def assert_clean(server: ServerProcess) -> None:
    checked = server.check()
    assert checked.returncode == 0, f"segmentd check:\n{checked.stdout}{checked.stderr}"


@pytest.mark.parametrize("followers", [0, 1])
def test_everything_at_once_survives_deaths_at_any_moment(tmp_path: Path, followers: int) -> None:
    live_and_die(tmp_path, followers, LIVES_SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("followers", [0, 1])
def test_everything_at_once_survives_many_deaths(tmp_path: Path, followers: int) -> None:
    live_and_die(tmp_path, followers, LIVES_LONG)
