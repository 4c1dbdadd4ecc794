"""The checkpointer: a child process that folds the journal into the index.

A process of its own, because folding is steady work for a whole core, and Python's threads would take it from the
event loop. LMDB may be opened by several processes, so nothing has to be sent but the word to begin. The protocol is
lines: the parent writes `fold` on standard input; the child answers on standard output with one JSON object for each
fold (`Folded` and `seconds`), the last with `"more": false`, or with `{"error": "..."}`. End of input ends the child.
"""

import signal
import sys
import time
from pathlib import Path

import msgspec

from segmentd.storage.checkpoint import fold
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder


class FoldReport(msgspec.Struct, frozen=True):
    """One answer of the checkpointer."""

    seq: int = 0
    changes: int = 0
    more: bool = False
    seconds: float = 0.0
    error: str | None = None


class CheckpointerArguments(msgspec.Struct, frozen=True):
    """What the child is told, as JSON in its only argument."""

    path: str
    journal_map_bytes: int
    index_map_bytes: int
    changes_max: int


def main(argument: str) -> int:
    """Serve fold requests until standard input ends."""
    # The terminal and systemd signal the whole group; this process ends when its parent closes its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arguments = msgspec.json.decode(argument, type=CheckpointerArguments)
    folder = DataFolder(
        Path(arguments.path),
        journal_map_bytes=arguments.journal_map_bytes,
        index_map_bytes=arguments.index_map_bytes,
        create=False,
        lock=False,
    )
    journal = folder.open_journal(read_only=True)
    index = folder.open_index()
    for _ in sys.stdin:
        more = True
        while more:
            start = time.perf_counter()
            try:
                folded = fold(journal, index, changes_max=arguments.changes_max)
            except StorageError as error:
                report = FoldReport(error=str(error))
            else:
                seconds = time.perf_counter() - start
                report = FoldReport(seq=folded.seq, changes=folded.changes, more=folded.more, seconds=seconds)
            more = report.more
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
            sys.stdout.flush()
    index.close()
    journal.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
