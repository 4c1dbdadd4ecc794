"""A server whose power is cut keeps on its disk, synced, whatever it has acknowledged.

The server and its children run with a shim that remembers what they have synced. After the cut a disk is made of that
alone, or of that and some of the rest, and the next server starts there. `CRASH_SEED` repeats a run's requests and
moments; `CRASH_LIVES` sets how many cuts the long test has.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.crash.everything import Everything, wait_for_backups
from tests.crash.powercut import Disk, Lost, Shim, cut_power
from tests.crash.test_everything import SECTIONS, assert_clean
from tests.serverprocess import STOP_SECONDS_MAX, ServerDiedError, ServerProcess, log_shown

SEED = int(os.environ.get("CRASH_SEED", Random().randrange(2**32)))
CUTS_SHORT = 3
CUTS_LONG = int(os.environ.get("CRASH_LIVES", "40"))
LIES_MAX = 8
LIFE_SECONDS_MAX = 1.5


class Cuts:
    """One server, and its disk through any number of power cuts."""

    def __init__(self, shim: Shim, folder: Path, name: str, followers: int = 0) -> None:
        self.random = Random(f"{SEED} {name}")
        self.everything = Everything(folder, f"{SEED} {name}", folder / "disk" / "safe" / "backups")
        self.lost: list[Lost] = []
        self._shim = shim
        self._root = folder / "disk"
        self._root.mkdir()
        self._folder = folder
        self.server = ServerProcess(self._root, {**SECTIONS, "server": {"followers": followers}})
        # In a folder that the server has to make, as the one of the backups.
        self.server.data = self._root / "store" / "data"

    def live(self, *, strict: bool, ignored: str = "", backup: bool = False) -> None:
        """Start on what is there, take load, and lose the power.

        strict: nothing that was not synced stays by chance. ignored: syncs that the disk lies about.
        backup: not before one is complete.
        """
        shadow = self._folder / "shadow"
        disk = Disk(self._shim, self._root, shadow)
        self.server.start(disk.environ(ignored))
        self.everything.backups.environ = disk.environ(ignored)
        if not self.lost:
            self.everything.begin(self.server)
        else:
            self.everything.inspect(self.server)
        with self.everything.sending(self.server):
            if backup:
                wait_for_backups(self.everything, 1, STOP_SECONDS_MAX)
            time.sleep(self.random.uniform(0.2, LIFE_SECONDS_MAX))
            cut_power(self.server)
        made = self._folder / "made"
        self.lost.append(disk.after_cut(made, None if strict else self.random))
        shutil.rmtree(self._root)
        shutil.rmtree(shadow)
        made.rename(self._root)

    def go_on_lying(self, ignored: str) -> None:
        """More lives on a disk that lies, since in one of them perhaps nothing that it lies about is acknowledged."""
        for _ in range(LIES_MAX):
            self.live(strict=True, ignored=ignored)
        self.end()

    def end(self) -> None:
        """Start on what is there, and keep every promise."""
        print(f"lost: {self.lost}")
        self.server.start()
        self.everything.inspect_end(self.server)
        self.server.terminate()
        assert_clean(self.server)
        if self.everything.backups.whole:
            self.everything.inspect_backup()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here, so the disk that forgets cannot be made")
    return Shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def cuts(shim: Shim, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cuts]:
    print(f"CRASH_SEED={SEED}")
    cuts = Cuts(shim, tmp_path, request.node.name, getattr(request, "param", 0))
    with log_shown(cuts.server):
        yield cuts
        cuts.server.close()


@pytest.mark.parametrize("cuts", [0, 1], indirect=True, ids=["alone", "follower"])
def test_every_promise_survives_power_cuts(cuts: Cuts) -> None:
    for life in range(CUTS_SHORT):
        cuts.live(strict=life % 2 == 0, backup=life == 0)
    cuts.end()
    assert sum(lost.bytes for lost in cuts.lost) > 0, "nothing was ever lost; the test showed nothing"


@pytest.mark.parametrize("ignored", ["/data", "/journal/data.mdb", "/index/data.mdb", "/imports"])
def test_a_disk_that_lies_about_its_syncs_is_noticed(cuts: Cuts, ignored: str) -> None:
    cuts.live(strict=True)
    cuts.live(strict=True, ignored=ignored)
    with pytest.raises((AssertionError, ServerDiedError)):
        cuts.go_on_lying(ignored)


@pytest.mark.soak
@pytest.mark.parametrize("cuts", [0, 1], indirect=True, ids=["alone", "follower"])
def test_every_promise_survives_many_power_cuts(cuts: Cuts) -> None:
    for life in range(CUTS_LONG):
        cuts.live(strict=life % 2 == 0, backup=life % 10 == 0)
    cuts.end()
