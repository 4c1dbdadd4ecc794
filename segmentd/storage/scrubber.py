"""The scrubber: a child process that makes a new generation of the store without the pages of the old one.

LMDB does not wipe what it deletes: freed pages, and the gaps in used ones, keep their bytes until they are used again.
So what was forgotten is physically gone only with the file it was in. The child copies the index (LMDB's compacting
copy takes over what is in use and nothing else) and folds the journal into the copy, until a short pause of the commits
lets it fold the last record. Then the new index stands for everything, and its journal can begin empty.

Protocol: for each line on standard input (`copy`, `fold`, `finish`) one `ScrubReport` as JSON on standard output. The
parent keeps journal records from being cut from before `copy` to the end, pauses the commits around `finish`, and makes
the new generation valid afterwards. Killed at any moment, parent or child, the old generation stands.
"""

import signal
import sys
from pathlib import Path

import msgspec

from segmentd.storage.answering import answer
from segmentd.storage.checkpoint import fold
from segmentd.storage.errors import StorageError
from segmentd.storage.failpoints import hit
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index


class ScrubberArguments(msgspec.Struct, frozen=True):
    """What the child is told, as JSON in its only argument."""

    path: str
    journal_map_bytes: int
    index_map_bytes: int
    changes_max: int
    generation: str
    """Of the store that is to be made."""


class ScrubReport(msgspec.Struct, frozen=True):
    """The answer to a command."""

    seq: int = 0
    """The new index stands for this journal sequence number."""
    error: str | None = None


class _Scrub:
    def __init__(self, arguments: ScrubberArguments) -> None:
        self._changes_max = arguments.changes_max
        self._folder = DataFolder(
            Path(arguments.path),
            journal_map_bytes=arguments.journal_map_bytes,
            index_map_bytes=arguments.index_map_bytes,
            create=False,
            lock=False,
        )
        self._journal = self._folder.open_journal(read_only=True)
        self._generation = arguments.generation
        self._index: Index | None = None

    def copy(self) -> int:
        old = self._folder.open_index(read_only=True)
        target = self._folder.make_generation(self._generation)
        old.copy_to(target)
        old.close()
        self._index = self._folder.open_index(generation=self._generation)
        return self.fold()

    def fold(self) -> int:
        """Fold until the journal ends; returns the sequence number."""
        assert self._index is not None  # noqa: S101  # the parent sends `copy` first
        while True:
            folded = fold(self._journal, self._index, changes_max=self._changes_max)
            if not folded.more:
                return folded.seq

    def finish(self) -> int:
        assert self._index is not None  # noqa: S101
        seq = self.fold()
        hit("scrubbing", parent=True)
        # Opening has made durable what LMDB does not sync: its copy, and the first pages of a new journal.
        self._folder.open_journal(generation=self._generation).close()
        return seq


def main(argument: str) -> int:
    """Serve commands until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arguments = msgspec.json.decode(argument, type=ScrubberArguments)
    scrub: _Scrub | None = None
    for line in sys.stdin:
        try:
            scrub = scrub or _Scrub(arguments)
            commands = {"copy": scrub.copy, "fold": scrub.fold, "finish": scrub.finish}
            report = ScrubReport(seq=commands[line.strip()]())
        except (StorageError, OSError) as error:
            report = ScrubReport(error=str(error))
        answer(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
