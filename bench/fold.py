"""`python -m bench.fold [--rows N]`: what folding the journal into the index costs the checkpointer.

Fills journals as imports and events do, folds them in this process, and shows changes for each second of processor
time (user and system, which other work on the machine moves less than the clock). Prints a table; judges nothing.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from segmentd.domain.membership import v_of, word_of
from segmentd.domain.shard import Word
from segmentd.settings import StorageSettings
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal
from segmentd.storage.records import JournalRecord, encode_record

GROUP_CHANGES: Final = 10_000
SEED: Final = 1


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.fold", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows: int = parser.parse_args(arguments).rows
    settings = StorageSettings()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = DataFolder(
            Path(scratch) / "data",
            journal_map_bytes=settings.journal_map_bytes,
            index_map_bytes=settings.index_map_bytes,
        )
        journal, index = folder.open_journal(), folder.open_index()
        for name, changes in _works(rows):
            _fill(journal, changes)
            _measure(name, journal, index, settings.checkpoint_batch_changes_max)
        index.close()
        journal.close()
        folder.close()
    return 0


def _works(rows: int) -> Iterator[tuple[str, list[Word]]]:
    """Each finds what the ones before left."""
    keys = [b"\0user-%09d" % number for number in range(rows)]
    yield "import, first", [(key, word_of(1, v_of(1_000, True))) for key in keys]
    yield "import, later T", [(key, word_of(1, v_of(2_000, True))) for key in keys]
    listed, others = keys[rows // 10 :], keys[: rows // 10]
    changed = [(key, word_of(1, v_of(3_000, True))) for key in listed]
    yield "import, 10 % gone", changed + [(key, word_of(1, v_of(3_000, True) - 1)) for key in others]
    chance = random.Random(SEED)  # any order will do, the same each time
    chance.shuffle(keys)
    yield "events, another audience", [(key, word_of(2, v_of(4_000, True))) for key in keys]
    yield "events, either way", [(key, word_of(1, v_of(5_000, chance.random() < 0.5))) for key in keys]


def _fill(journal: Journal, changes: list[Word]) -> None:
    for start in range(0, len(changes), GROUP_CHANGES):
        record = JournalRecord(changes=changes[start : start + GROUP_CHANGES], audiences=[(1, "a"), (2, "b")])
        journal.append(encode_record(record))


def _measure(name: str, journal: Journal, index: Index, changes_max: int) -> None:
    start, changes, more = time.process_time(), 0, True
    while more:
        folded = fold(journal, index, changes_max=changes_max)
        changes, more = changes + folded.changes, folded.more
    seconds = time.process_time() - start
    print(f"{name:>24}: {changes:>10,} changes, {changes / seconds:>9,.0f} for a second of the processor", flush=True)
    journal.cut(folded.seq)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
