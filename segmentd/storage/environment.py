"""Opening LMDB, and what its errors mean here."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from segmentd.storage.errors import FolderUnusableError, StoreFailureError, StoreFullError

READERS_MAX = 126


def open_environment(path: Path, *, map_bytes: int, databases_max: int, read_only: bool = False) -> lmdb.Environment:
    """Open (and make, unless `read_only`) an environment. map_bytes: address space, not disk; the file is sparse.

    Raises FolderUnusableError.
    """
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
def write_errors(path: Path) -> Iterator[None]:
    """Translate what goes wrong in a write transaction. Raises StoreFullError, StoreFailureError."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise StoreFullError(f"{path}: the LMDB map is full; raise its map_bytes setting") from error
    except lmdb.Error as error:
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            raise StoreFullError(f"{path}: no space left on the disk") from error
        raise StoreFailureError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFullError(f"{path}: no space left on the disk") from error
        raise StoreFailureError(f"{path}: {error}") from error
