"""The checkpointer: a child process that folds the journal into the index.

A process of its own, because folding is steady work for a whole core, and Python's threads would take it from the
event loop. LMDB may be opened by several processes, so nothing has to be sent but the word to begin. The protocol is
lines: the parent writes `fold` and the last record to be folded on standard input; the child answers on standard output
with one JSON object for each fold (`Folded` and `seconds`), the last with `"more": false`, or with `{"error": "..."}`.
To `sweep` it answers with one object, about one step of the sweep of deleted audiences. End of input ends the child.
"""

import ctypes
import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from segmentd.settings import StorageSettings
from segmentd.storage.answering import answer
from segmentd.storage.checkpoint import fold
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal
from segmentd.storage.sweep import sweep

NICENESS: Final = 10
LARGE_CHANGES: Final = 50_000


class FoldReport(msgspec.Struct, frozen=True):
    """One answer of the checkpointer."""

    seq: int = 0
    changes: int = 0
    more: bool = False
    swept: list[int] = []
    """Numbers of deleted audiences of which the index holds nothing any more."""
    seconds: float = 0.0
    error: str | None = None


class CheckpointerArguments(msgspec.Struct, frozen=True):
    """What the child is told, as JSON in its only argument."""

    path: str
    journal_map_bytes: int
    index_map_bytes: int
    changes_max: int


def arguments_of(path: Path, storage: StorageSettings) -> CheckpointerArguments:
    """What the child of a store in the folder `path` is told."""
    return CheckpointerArguments(
        path=str(path),
        journal_map_bytes=storage.journal_map_bytes,
        index_map_bytes=storage.index_map_bytes,
        changes_max=storage.checkpoint_batch_changes_max,
    )


def main(argument: str) -> int:
    """Serve fold requests until standard input ends."""
    # The terminal and systemd signal the whole group; this process ends when its parent closes its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where both share a core, answering comes first; commits are paced when folding falls behind.
    os.nice(NICENESS)
    arguments = msgspec.json.decode(argument, type=CheckpointerArguments)
    try:
        journal, index = _opened(arguments)
    except StorageError as error:
        # Said as the answer to the first command, so that the server's log has the reason.
        for _ in sys.stdin:
            answer(FoldReport(error=str(error)))
            break
        return 1
    for line in sys.stdin:
        changes, more = 0, True
        while more:
            report = _step(line.split(), journal, index, arguments.changes_max)
            changes = max(changes, report.changes)
            more = report.more and not line.startswith("sweep")
            answer(report)
        if changes >= LARGE_CHANGES:
            try:
                _give_memory_back(index)
            except StorageError as error:
                print(f"checkpointer: {error}", file=sys.stderr)  # The server says that it ended, and starts another.
                return 1
    index.close()
    journal.close()
    return 0


def _opened(arguments: CheckpointerArguments) -> tuple[Journal, Index]:
    """Raises StorageError."""
    folder = DataFolder(
        Path(arguments.path),
        journal_map_bytes=arguments.journal_map_bytes,
        index_map_bytes=arguments.index_map_bytes,
        create=False,
        lock=False,
    )
    journal = folder.open_journal(read_only=True)
    index = folder.open_index()
    # A predecessor that was killed while it read still pins the pages of its snapshot, and the maps would only grow.
    journal.reader_check()
    index.reader_check()
    return journal, index


def _give_memory_back(index: Index) -> None:
    """What a large fold took is not kept for the next one, which may be long in coming. Raises StorageError."""
    index.move_to(index.path)  # LMDB keeps the pages of its largest transaction as long as it is open.
    gc.collect()  # lets go of lists of free objects, which hold on to arenas
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc has it, musl gives back by itself
        trim(0)


def _step(command: list[str], journal: Journal, index: Index, changes_max: int) -> FoldReport:
    start = time.perf_counter()
    try:
        if command == ["sweep"]:
            swept = sweep(index, identifiers_max=changes_max)
            return FoldReport(more=swept.more, swept=swept.numbers, changes=swept.dropped)
        folded = fold(journal, index, changes_max=changes_max, seq_max=int(command[1]))
    except StorageError as error:
        return FoldReport(error=str(error))
    return FoldReport(seq=folded.seq, changes=folded.changes, more=folded.more, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
