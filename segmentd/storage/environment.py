"""Opening LMDB, and what its errors mean here."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from segmentd.storage.errors import FolderUnusableError, StorageError, StoreFailureError, StoreFullError
from segmentd.storage.wholeness import require_whole

READERS_MAX = 126
# In each of these the kernel refused to make the file longer: LMDB gave the transaction up, and its meta pages, which
# are written in place, were not touched. Whatever else goes wrong (EIO, EROFS) leaves what is on the disk unknown.
_NO_ROOM: Final = {
    errno.ENOSPC: "no space left on the disk; free some, and writes go on",
    errno.EDQUOT: "no space left on the disk (quota); free some, and writes go on",
    errno.EFBIG: "the file may not grow any more (limit of file sizes, ulimit -f); raise the limit and restart",
}
# A write that the kernel took only a part of is EIO to LMDB ("short write, filesystem full?", mdb.c), and leaves less
# room than this: LMDB flushes up to 64 pages of 4 KiB at a time.
_ROOM_BYTES_MIN: Final = 262_144


def open_environment(path: Path, *, map_bytes: int, databases_max: int, read_only: bool = False) -> lmdb.Environment:
    """Open (and make, unless `read_only`) an environment. map_bytes: address space, not disk; the file is sparse.

    Raises FolderUnusableError.
    """
    require_whole(path)
    try:
        return lmdb.open(
            str(path),
            map_size=map_bytes,
            max_dbs=databases_max,
            max_readers=READERS_MAX,
            readonly=read_only,
            create=not read_only,
            mode=0o600,
            # Random lookups in a large index gain nothing from read-ahead and lose page cache to it.
            readahead=False,
        )
    except lmdb.Error as error:
        raise FolderUnusableError(f"{path}: cannot be opened as an LMDB environment: {error}") from error


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Translate what goes wrong while reading. Raises FolderUnusableError."""
    try:
        yield
    except lmdb.Error as error:
        raise FolderUnusableError(f"{path}: cannot be read: {error}") from error


@contextmanager
def copy_errors(path: Path, target: Path) -> Iterator[None]:
    """Translate what goes wrong while copying, on either side. Raises FolderUnusableError."""
    try:
        yield
    except lmdb.Error as error:
        raise FolderUnusableError(f"{path}: cannot be copied to {target}: {error}") from error


@contextmanager
def write_errors(path: Path, environment: lmdb.Environment) -> Iterator[None]:
    """Translate what goes wrong in a write transaction. Raises StoreFullError, StoreFailureError.

    environment: the one that is written; it is asked whether a commit that failed was given up whole.
    """
    try:
        yield
    except lmdb.MapFullError as error:
        raise StoreFullError(f"{path}: the LMDB map is full; {_setting(path)}") from error
    except lmdb.Error as error:
        # LMDB gives a text and no number.
        number = next((number for number in _NO_ROOM if os.strerror(number) in str(error)), None)
        if number is None and _was_cut_short(path, environment, error):
            number = errno.ENOSPC
        raise _refused(path, number, error) from error
    except OSError as error:
        raise _refused(path, error.errno, error) from error


def _was_cut_short(path: Path, environment: lmdb.Environment, error: lmdb.Error) -> bool:
    """Whether a commit failed before its meta page, because the disk became full in the middle of a write."""
    if os.strerror(errno.EIO) not in str(error):
        return False
    try:
        if _has_room(path):
            return False
        # After a meta page that could not be written, whose outcome nobody knows, LMDB begins no transaction any more.
        environment.begin(write=True).abort()
    except (lmdb.Error, OSError):
        return False
    return True


def _has_room(path: Path) -> bool:
    """Whether what LMDB writes at a time could be written: of a quota only a try can tell. Raises OSError."""
    disk = os.statvfs(path)
    if min(disk.f_bavail, disk.f_bfree) * disk.f_frsize < _ROOM_BYTES_MIN:
        return False
    try:
        # Without a name, so that nothing is left of it whatever happens.
        file = os.open(path, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError as error:
        return error.errno not in _NO_ROOM
    try:
        return os.pwrite(file, bytes(_ROOM_BYTES_MIN), 0) == _ROOM_BYTES_MIN
    except OSError as error:
        return error.errno not in _NO_ROOM
    finally:
        os.close(file)


def _refused(path: Path, number: int | None, error: Exception) -> StorageError:
    if number in _NO_ROOM:
        return StoreFullError(f"{path}: {_NO_ROOM[number]}")
    return StoreFailureError(f"{path}: {error}")


def _setting(path: Path) -> str:
    """Names the setting of the map in the folder `path`, which is called after what it holds."""
    kind = next((kind for kind in ("journal", "index") if path.name.startswith(kind)), None)
    return f"raise [storage] {kind}_map_bytes and restart" if kind else "raise its map_bytes setting and restart"
