"""LMDB's readers: dead ones are cleared, long ones are noticed and counted until they end."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog.testing

from segmentd.followers.readers import LONG_SECONDS, ReaderWatch
from segmentd.settings import StorageSettings
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.records import JournalRecord, encode_record

# Another process that begins to read the index and says so.
READER = """
import sys, lmdb
txn = lmdb.open(sys.argv[1], readonly=True, max_dbs=16).begin()
print("reads", flush=True)
sys.stdin.read()
"""
NOTICED = "a reader holds a snapshot for long; files grow meanwhile"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    settings = StorageSettings()
    folder = DataFolder(
        tmp_path / "data", journal_map_bytes=settings.journal_map_bytes, index_map_bytes=settings.index_map_bytes
    )
    opened, journal = folder.open_index(), folder.open_journal()
    journal.append(encode_record(JournalRecord()))
    yield opened
    journal.close()
    opened.close()
    folder.close()


@contextmanager
def reader_of(index: Index) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", READER, str(index.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reads\n"
        yield process
        process.kill()


def test_the_reader_of_a_killed_process_is_cleared(index: Index) -> None:
    watch = ReaderWatch()
    with reader_of(index) as process:
        watch.look([index], 0.0)
        assert [reader.pid for reader in index.readers()] == [process.pid]
        process.kill()
        process.wait()
        with structlog.testing.capture_logs() as logged:
            watch.look([index], 1.0)
    assert index.readers() == []
    assert [(entry["event"], entry["readers"]) for entry in logged] == [("cleared readers of processes that died", 1)]


def test_a_long_reader_is_told_of_once_and_counted_until_it_ends(index: Index) -> None:
    watch = ReaderWatch()
    with reader_of(index) as process:
        watch.look([index], 100.0)
        watch.look([index], 100.0 + LONG_SECONDS)
        assert watch.long == 0
        with structlog.testing.capture_logs() as logged:
            for later in (1, 6, 11):
                watch.look([index], 100.0 + LONG_SECONDS + later)
                assert watch.long == 1
        assert [(entry["event"], entry["environment"], entry["pid"]) for entry in logged] == [
            (NOTICED, "index", process.pid)
        ]
        process.kill()
        process.wait()
        watch.look([index], 100.0 + LONG_SECONDS + 16)
        assert watch.long == 0
