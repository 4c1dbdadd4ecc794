"""The data folder: one owner at a time, one format.

```
<folder>/lock          held (flock) by the process that serves or checks the folder
<folder>/format.json   {"format": 1}, written when the folder is made
<folder>/journal/      LMDB
<folder>/index/        LMDB
<folder>/keys.json     API keys, only their hashes (segmentd.keyfile)
```
"""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from segmentd.storage.errors import FolderLockedError, FolderUnusableError, FormatTooNewError
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal

FORMAT = 1
"""Raised when an older segmentd could not read what this one writes."""


class DataFolder:
    """Holds the lock from `__init__` to `close`. The checkpointer, a child of the holder, opens with `lock=False`."""

    def __init__(
        self, path: Path, *, journal_map_bytes: int, index_map_bytes: int, create: bool = True, lock: bool = True
    ) -> None:
        """Open the folder. Raises FolderLockedError, FormatTooNewError, FolderUnusableError."""
        self.path = path
        self._journal_map_bytes = journal_map_bytes
        self._index_map_bytes = index_map_bytes
        self._lock = -1
        try:
            self._enter(create, lock)
        except OSError as error:
            raise FolderUnusableError(f"{path}: {error.strerror or error}") from error

    def open_journal(self, *, read_only: bool = False) -> Journal:
        """Open the journal; at most once a process. Raises FolderUnusableError."""
        journal = Journal(self.path / "journal", map_bytes=self._journal_map_bytes, read_only=read_only)
        if not read_only:
            sync_folder(journal.path)
        return journal

    def open_index(self, *, read_only: bool = False) -> Index:
        """Open the index; at most once a process. Raises FolderUnusableError."""
        index = Index(self.path / "index", map_bytes=self._index_map_bytes, read_only=read_only)
        if not read_only:
            sync_folder(index.path)
        return index

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self, create: bool, lock: bool) -> None:
        if create:
            self.path.mkdir(parents=True, exist_ok=True)
        elif not (self.path / "format.json").exists():
            raise FolderUnusableError(f"{self.path}: this is no data folder of segmentd (format.json is missing)")
        if lock:
            self._take_lock()
        try:
            self._check_format(create)
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise FolderLockedError(f"{self.path}: another segmentd process uses this folder") from None

    def _check_format(self, create: bool) -> None:
        file = self.path / "format.json"
        if create and not file.exists():
            self._write_format(file)
        try:
            written = json.loads(file.read_bytes())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise FolderUnusableError(f"{file}: is damaged: {error}") from error
        if not isinstance(written, int) or written < 1:
            raise FolderUnusableError(f"{file}: has no valid format number")
        if written > FORMAT:
            raise FormatTooNewError(
                f"{self.path}: has format {written}; this segmentd reads up to format {FORMAT}, use a newer one"
            )

    def _write_format(self, file: Path) -> None:
        if (self.path / "index").exists() or (self.path / "journal").exists():
            raise FolderUnusableError(f"{self.path}: holds a store but no format.json; is it damaged?")
        part = file.with_suffix(".part")
        with part.open("w") as out:
            json.dump({"format": FORMAT}, out)
            out.flush()
            os.fsync(out.fileno())
        part.rename(file)
        for made in (self.path / "journal", self.path / "index"):
            made.mkdir(exist_ok=True)
        sync_folder(self.path)
        sync_folder(self.path.resolve().parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
