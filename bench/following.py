"""What a follower pays to be caught up: `python -m bench.following`.

This process is the owner: it appends records to a journal and publishes them. A child is the follower: it enters
`reading`, looks one identifier up in 20 audiences, and says how long that took. The more changes lie between two
queries, the more the query has to fold. Nothing of HTTP or GraphQL is in these figures.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from segmentd.domain.membership import v_of, word_of
from segmentd.domain.shard import Word
from segmentd.runtime.following import FollowingStore
from segmentd.settings import LimitsSettings, StorageSettings
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.records import JournalRecord, encode_record
from segmentd.storage.visible import Visible

IDENTIFIERS: Final = 200_000
AUDIENCES: Final = 20
ROUNDS: Final = 300
CHANGES_BETWEEN: Final = (0, 1, 10, 100, 500, 2_000)
UNFOLDED: Final = 1_000_000
_TS_MS: Final = 1_750_000_000_000


class Figures(msgspec.Struct):
    """One answer of the follower."""

    seconds: float
    overlay_changes: int
    resident_bytes: int


def follower(path: str, page: str) -> None:
    """The child: one look for each line on standard input, which names the identifier."""
    descriptor = os.open(page, os.O_RDONLY)
    store = FollowingStore(
        Path(path), Visible.of(descriptor), storage=StorageSettings(path=path), limits=LimitsSettings()
    )
    store.open()
    audiences = [f"audience_{number}" for number in range(AUDIENCES)]
    for line in sys.stdin.buffer:
        key = b"\0" + line.strip()
        start = time.perf_counter()
        with store.reading():
            store.lookup(key, audiences)
        seconds = time.perf_counter() - start
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found = Figures(seconds, store.stats().overlay_changes, pages * os.sysconf("SC_PAGE_SIZE"))
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()


class Owner:
    """The journal, the index, and the follower beside them."""

    def __init__(self, path: Path) -> None:
        storage = StorageSettings(path=str(path))
        self._folder = DataFolder(
            path, journal_map_bytes=storage.journal_map_bytes, index_map_bytes=storage.index_map_bytes
        )
        self._journal, self._index = self._folder.open_journal(), self._folder.open_index()
        self._visible, page = Visible.create()
        self._random = random.Random(1)
        audiences = [(number, f"audience_{number}") for number in range(AUDIENCES)]
        self.append(IDENTIFIERS, audiences)
        fold(self._journal, self._index, changes_max=10 * IDENTIFIERS)
        place = f"/proc/{os.getpid()}/fd/{page}"
        command = [sys.executable, "-m", "bench.following", str(path), place]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.look()

    def append(self, changes: int, audiences: list[tuple[int, str]] | None = None) -> None:
        """One published record."""
        words: list[Word] = [(b"\0u-%d" % self._random.randrange(IDENTIFIERS), self._word()) for _ in range(changes)]
        blob = encode_record(JournalRecord(changes=words, audiences=audiences or []))
        self._visible.publish(self._journal.append(blob))

    def look(self) -> Figures:
        """One query of the follower."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b"u-%d\n" % self._random.randrange(IDENTIFIERS))
        self._child.stdin.flush()
        return msgspec.json.decode(self._child.stdout.readline(), type=Figures)

    def fold(self) -> None:
        """What the checkpointer does."""
        while fold(self._journal, self._index, changes_max=400_000).more:
            pass

    def end(self) -> None:
        """End the follower."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def _word(self) -> int:
        qualified = self._random.random() < 0.8
        return word_of(self._random.randrange(AUDIENCES), v_of(_TS_MS + self._random.randrange(10**6), qualified))


def main() -> None:
    """Print a row for each number of changes between two queries, and what a deep overlay costs."""
    with tempfile.TemporaryDirectory() as home:
        owner = Owner(Path(home) / "data")
        print("| changes before each query | median µs | p99 µs | µs a change |\n|---:|---:|---:|---:|")
        nothing = 0.0
        for changes in CHANGES_BETWEEN:
            taken = []
            for _ in range(ROUNDS):
                if changes:
                    owner.append(changes)
                taken.append(owner.look().seconds * 1e6)
            taken.sort()
            middle = taken[ROUNDS // 2]
            nothing = nothing or middle
            each = f"{(middle - nothing) / changes:.2f}" if changes else ""
            print(f"| {changes:,} | {middle:,.1f} | {taken[ROUNDS * 99 // 100]:,.1f} | {each} |", flush=True)
            owner.fold()
        before = owner.look()
        for _ in range(UNFOLDED // 2_000):
            owner.append(2_000)
            deep = owner.look()
        grown = (deep.resident_bytes - before.resident_bytes) / max(1, deep.overlay_changes)
        looks = sorted(owner.look().seconds * 1e6 for _ in range(ROUNDS))
        print(
            f"\n{deep.overlay_changes:,} unfolded: query median {looks[ROUNDS // 2]:.1f} µs, {grown:.0f} bytes a change"
        )
        owner.fold()
        dropped = owner.look()
        print(f"first query after the fold: {dropped.seconds * 1e6:.0f} µs; {dropped.overlay_changes:,} changes kept")
        owner.end()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        follower(sys.argv[1], sys.argv[2])
    else:
        main()
