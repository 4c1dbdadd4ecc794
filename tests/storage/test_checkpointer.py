"""The checkpointer as a real process: lines in, reports out, and what remains when it is killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from segmentd.domain.membership import word_of
from segmentd.storage.checkpointer import LARGE_CHANGES, CheckpointerArguments, FoldReport
from segmentd.storage.folder import DataFolder
from tests.storage.stored import MAP_BYTES, Store
from tests.storage.test_journal import pinned

# Reads one record, says so, and keeps the snapshot until it is killed.
READ_AND_HANG = """
import sys, pathlib
from segmentd.storage.journal import Journal
journal = Journal(pathlib.Path(sys.argv[1]), map_bytes=2**26, read_only=True)
reading = journal.records(0)
next(reading)
print("reading", flush=True)
sys.stdin.read()
"""


@contextmanager
def checkpointer(folder: DataFolder, changes_max: int = 1_000) -> Iterator[subprocess.Popen[str]]:
    arguments = CheckpointerArguments(
        path=str(folder.path), journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, changes_max=changes_max
    )
    with subprocess.Popen(
        [sys.executable, "-m", "segmentd.storage.checkpointer", msgspec.json.encode(arguments).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def reports(process: subprocess.Popen[str]) -> list[FoldReport]:
    """Ask for a fold, and read until it is done."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"fold {2**40}\n")
    process.stdin.flush()
    found: list[FoldReport] = []
    while not found or found[-1].more:
        found.append(msgspec.json.decode(process.stdout.readline(), type=FoldReport))
    return found


def test_each_request_folds_everything_in_bounded_folds_and_the_end_of_input_ends_it(
    folder: DataFolder, store: Store
) -> None:
    for number in range(5):
        store.append([(b"\0u%d" % number, word_of(1, 2))])
    with checkpointer(folder, changes_max=2) as process:
        assert [(report.seq, report.changes, report.more) for report in reports(process)] == [
            (2, 2, True),
            (4, 2, True),
            (5, 1, False),
        ]
        store.append([(b"\0u0", word_of(1, 3))])
        assert [(report.seq, report.changes, report.error) for report in reports(process)] == [(6, 1, None)]
        assert [(report.seq, report.changes, report.more) for report in reports(process)] == [(6, 0, False)]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
    store.assert_index_is(store.state)


def own_bytes(process: subprocess.Popen[str]) -> int:
    """Its anonymous memory."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1_024


def test_a_large_fold_leaves_no_memory_behind_and_the_next_one_is_right(folder: DataFolder, store: Store) -> None:
    with checkpointer(folder, changes_max=4 * LARGE_CHANGES) as process:
        assert [report.changes for report in reports(process)] == [0]
        before = own_bytes(process)
        for first in range(0, 3 * LARGE_CHANGES, LARGE_CHANGES):
            store.append([(b"\0u%d" % number, word_of(1, 2)) for number in range(first, first + LARGE_CHANGES)])
        assert [report.changes for report in reports(process)] == [3 * LARGE_CHANGES]
        patience = time.monotonic() + 20
        # Otherwise twice as much stays.
        while own_bytes(process) > before + 8_000_000:
            assert time.monotonic() < patience, own_bytes(process) - before
            time.sleep(0.01)
        store.append([(b"\0u0", word_of(1, 4))])
        assert [(report.changes, report.error) for report in reports(process)] == [(1, None)]
    store.assert_index_is(store.state)


def test_an_error_is_reported_and_the_next_request_is_served(folder: DataFolder, store: Store) -> None:
    seq = store.append([(b"\0u", word_of(1, 2))])
    key, blob = seq.to_bytes(8, "big"), next(store.journal.records(0))[1]
    with store.journal._env.begin(write=True) as txn:
        txn.put(key, blob + b"!")
    with checkpointer(folder) as process:
        [report] = reports(process)
        assert report.error == f"{folder.path / 'journal'}: record 1: is damaged, its checksum is wrong"
        with store.journal._env.begin(write=True) as txn:
            txn.put(key, blob)
        assert [(report.seq, report.error) for report in reports(process)] == [(1, None)]
    store.assert_index_is(store.state)


def test_a_folder_that_cannot_be_opened_is_the_answer_and_ends_the_checkpointer(folder: DataFolder) -> None:
    (folder.path / "format.json").write_text(json.dumps({"format": 99}))
    with checkpointer(folder) as process:
        [report] = reports(process)
        assert report.error is not None
        assert "has format 99" in report.error
        assert process.wait() == 1


def test_what_a_killed_reader_pinned_is_let_go_by_the_next_checkpointer(folder: DataFolder, store: Store) -> None:
    store.append([(b"\0u", word_of(1, 2))])
    with subprocess.Popen(
        [sys.executable, "-c", READ_AND_HANG, str(folder.path / "journal")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        assert pinned(store.journal) == ["1"]
        reader.kill()
    assert pinned(store.journal) == ["1"]
    with checkpointer(folder) as process:
        reports(process)
        assert pinned(store.journal) == []


@pytest.mark.parametrize("folded", [False, True])
def test_a_killed_checkpointer_loses_nothing(folder: DataFolder, store: Store, folded: bool, tmp_path: Path) -> None:
    store.append([(b"\0u", word_of(1, 2))])
    with checkpointer(folder) as process:
        if folded:
            reports(process)
        process.kill()
        process.wait()
    store.assert_recovery_gives_state()
    with checkpointer(folder) as process:
        assert reports(process)[-1].seq == 1
    store.assert_index_is(store.state)
