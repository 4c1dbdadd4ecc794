"""What LMDB's errors mean here: full, failed, or unreadable; and that a full index is left as it was."""

import errno
import os
from pathlib import Path
from typing import NamedTuple, cast
from unittest import mock

import lmdb
import pytest

from segmentd.domain.membership import word_of
from segmentd.storage.checkpoint import fold
from segmentd.storage.environment import read_errors, write_errors
from segmentd.storage.errors import FolderUnusableError, StoreFailureError, StoreFullError
from segmentd.storage.folder import DataFolder
from tests.storage.stored import MAP_BYTES, Store

PATH = Path("store")
NO_ENVIRONMENT = cast("lmdb.Environment", None)
"""Only asked where a disk is full."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            lmdb.MapFullError("mdb_put: MDB_MAP_FULL"),
            "store: the LMDB map is full; raise its map_bytes setting and restart",
        ),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.ENOSPC)}"), "store: no space left on the disk"),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EDQUOT)}"), "store: no space left on the disk"),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EFBIG)}"), "store: the file may not grow any more"),
        (OSError(errno.EFBIG, "x"), "store: the file may not grow any more"),
        (OSError(errno.ENOSPC, "x"), "store: no space left on the disk"),
    ],
)
def test_no_room_means_that_nothing_was_written_and_writing_may_go_on(error: Exception, message: str) -> None:
    with pytest.raises(StoreFullError, match=message), write_errors(PATH, NO_ENVIRONMENT):
        raise error


@pytest.mark.parametrize(
    "error", [lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), lmdb.PanicError("x"), OSError(errno.EIO, "x")]
)
def test_anything_else_while_writing_leaves_the_outcome_unknown(error: Exception) -> None:
    with pytest.raises(StoreFailureError, match="store: "), write_errors(PATH, NO_ENVIRONMENT):
        raise error


class Disk(NamedTuple):
    """As `os.statvfs` tells it."""

    f_bavail: int
    f_bfree: int
    f_frsize: int = 4_096


@pytest.mark.parametrize("panics", [False, True], ids=["given up whole", "meta page not written"])
@pytest.mark.parametrize("free", [0, 63, 64])
def test_an_io_error_on_a_full_disk_is_a_write_cut_short_unless_the_meta_page_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, panics: bool
) -> None:
    expected = StoreFullError if free < 64 and not panics else StoreFailureError
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(free, 10 * free))
    with lmdb.open(str(tmp_path)) as environment:
        asked = mock.Mock(wraps=environment)
        if panics:
            asked.begin.side_effect = lmdb.PanicError("MDB_PANIC")
        with pytest.raises(expected), write_errors(tmp_path, asked):
            raise lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreFullError),
        (4_096, StoreFullError),
        (OSError(errno.EIO, "Input/output error"), StoreFailureError),
        (None, StoreFailureError),
    ],
    ids=["quota", "cut short again", "the disk fails", "there is room"],
)
def test_an_io_error_within_a_quota_that_is_used_up_is_a_write_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Exception | int | None, expected: type[Exception]
) -> None:
    if written is not None:
        monkeypatch.setattr(os, "pwrite", mock.Mock(side_effect=[written]))
    with lmdb.open(str(tmp_path)) as environment:
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(expected), write_errors(tmp_path, environment):
            raise lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}")
        assert len(os.listdir("/proc/self/fd")) == descriptors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.mdb", "lock.mdb"]


def test_an_error_while_reading_is_named() -> None:
    with pytest.raises(FolderUnusableError, match="store: cannot be read: x"), read_errors(PATH):
        raise lmdb.CorruptedError("x")


def test_a_fold_into_a_full_index_changes_nothing_and_succeeds_in_a_larger_one(tmp_path: Path) -> None:
    small = DataFolder(tmp_path, journal_map_bytes=MAP_BYTES, index_map_bytes=256 * 1024)
    store = Store(small)
    store.append([(b"\0first", word_of(1, 2))])
    store.fold_all()
    store.append([(b"\0%06d" % number + b"x" * 200, word_of(1, 2)) for number in range(2_000)])
    with pytest.raises(StoreFullError, match="index: the LMDB map is full"):
        fold(store.journal, store.index, changes_max=10_000)
    store.assert_index_is_state_at(1)
    store.close()
    store.folder = DataFolder(tmp_path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, lock=False)
    store.journal, store.index = store.folder.open_journal(), store.folder.open_index()
    store.fold_all()
    store.assert_index_is(store.state)
    store.close()
    small.close()


@pytest.mark.parametrize("name", ["journal", "index", "index-2"])
def test_a_full_map_names_the_setting_to_raise(name: str) -> None:
    setting = rf"raise \[storage\] {name[:5]}\w*_map_bytes and restart"
    with pytest.raises(StoreFullError, match=setting), write_errors(Path("data") / name, NO_ENVIRONMENT):
        raise lmdb.MapFullError("x")
