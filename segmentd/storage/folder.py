"""The data folder: one owner at a time, one format.

```
<folder>/lock          held (flock) by the process that serves or checks the folder
<folder>/format.json   {"format": 1, "generation": "", "made": true}, written when the folder is made and by each scrub
<folder>/journal/      LMDB; with a generation `journal-<generation>/`
<folder>/index/        LMDB; likewise
<folder>/keys.json     API keys, only their hashes (segmentd.keyfile)
```

A scrub (`storage/scrubber.py`) replaces journal and index together: it makes folders of a new generation, and the
renaming of format.json makes them valid. Whoever reads from another process and wants to follow looks at format.json.
Once journal and index have both been on disk it says `made`: from then on one that is absent or empty was lost, while
before that it is what a crash has left of a folder that was just being made.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import structlog

from segmentd.storage.errors import FolderLockedError, FolderUnusableError, FormatTooNewError
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal
from segmentd.storage.wholeness import require_present

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

T = TypeVar("T")

_FORMAT_FILE = "format.json"
_FORMAT_PART = "format.part"
_MADE = "made"
_STORES = frozenset({"journal", "index"})
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
        self._on_disk: set[str] = set()
        """Stores that were opened for writing, and so are on disk."""
        try:
            self._enter(create, lock)
        except OSError as error:
            raise FolderUnusableError(f"{path}: {error.strerror or error}") from error

    def open_journal(self, *, read_only: bool = False, generation: str | None = None) -> Journal:
        """Open the journal (None: the valid one); at most once a process. Raises FolderUnusableError."""

        def open_in(generation: str) -> Journal:
            path = self._place("journal", generation)
            return Journal(path, map_bytes=self._journal_map_bytes, read_only=read_only)

        journal = self._open_valid("journal", open_in) if generation is None else open_in(generation)
        if not read_only:
            self._sync_store("journal", journal.path)
        return journal

    def open_index(self, *, read_only: bool = False, generation: str | None = None) -> Index:
        """Open the index (None: the valid one); at most once a process. Raises FolderUnusableError."""

        def open_in(generation: str) -> Index:
            path = self._place("index", generation)
            return Index(path, map_bytes=self._index_map_bytes, read_only=read_only)

        index = self._open_valid("index", open_in) if generation is None else open_in(generation)
        if not read_only:
            self._sync_store("index", index.path)
        return index

    def _sync_store(self, name: str, path: Path) -> None:
        """What LMDB made, its folder too where it was missing after a crash, outlasts a power cut."""
        try:
            _sync_file(path / "data.mdb")
            sync_folder(path)
            sync_folder(self.path)
            self._on_disk.add(name)
            if self._lock >= 0 and len(self._on_disk) == len(_STORES) and not (content := self._format()).get(_MADE):
                self._write_format({**content, _MADE: True})
                self.take_generation()
        except OSError as error:
            raise FolderUnusableError(f"{path}: {error.strerror or error}") from error

    def generation(self) -> str:
        """The valid generation; "" for the first one. Raises FolderUnusableError."""
        generation = self._format().get("generation", "")
        if not isinstance(generation, str):
            raise FolderUnusableError(f"{self.path / _FORMAT_FILE}: has no valid generation")
        return generation

    def make_generation(self, generation: str) -> Path:
        """Make the folders of a new generation; returns the one for its index. Raises OSError."""
        for name in _STORES:
            self._place(name, generation).mkdir(mode=0o700)
        return self._place("index", generation)

    def prepare_generation(self, generation: str) -> None:
        """Write down what `take_generation` makes valid; as yet the old one stands. Raises OSError."""
        self._write_format({"format": FORMAT, "generation": generation, _MADE: True})

    def take_generation(self) -> None:
        """Make the prepared generation, which is whole and on disk, the valid one, durably.

        Raises OSError; then either generation may be the valid one after a crash.
        """
        self._name_format()
        sync_folder(self.path)

    def reopen(self, journal: Journal, index: Index, generation: str) -> None:
        """Have the owner's open environments stand on the new valid generation. Raises FolderUnusableError."""
        journal.move_to(self._place("journal", generation))
        index.move_to(self._place("index", generation))

    def remove_other_generations(self, *opened: Path) -> None:
        """Remove the folders of all generations but the valid one; only the owner may. Raises OSError, StorageError.

        opened: folders that the owner still stands on, which stay whatever is valid.
        """
        valid = {self._place(name, self.generation()).name for name in _STORES}
        kept = valid | {path.name for path in opened}
        # A power cut must not make valid again what is removed now.
        sync_folder(self.path)
        for path in self.path.iterdir():
            name = path.name.partition("-")[0]
            if name in _STORES and path.name not in kept and path.is_dir():
                _remove(path)

    def write_format_to(self, copy: Path) -> None:
        """Say in a copy of the store, whose folders have no generation, what format it has. Raises OSError."""
        (copy / _FORMAT_FILE).write_text(json.dumps({"format": FORMAT, _MADE: True}))

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
        elif not (self.path / _FORMAT_FILE).exists():
            raise FolderUnusableError(f"{self.path}: this is no data folder of segmentd (format.json is missing)")
        if lock:
            self._take_lock()
        try:
            self._check_format(create)
        except BaseException:
            self.close()
            raise

    def _open_valid(self, name: str, open_in: Callable[[str], T]) -> T:
        valid = self.generation()
        try:
            if self._format().get(_MADE):
                require_present(self._place(name, valid))
            return open_in(valid)
        except FolderUnusableError:
            # A scrub may have replaced it between the look and the opening.
            if self.generation() == valid:
                raise
        return self._open_valid(name, open_in)

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise FolderLockedError(f"{self.path}: another segmentd process uses this folder") from None

    def _place(self, name: str, generation: str) -> Path:
        return self.path / (f"{name}-{generation}" if generation else name)

    def _check_format(self, create: bool) -> None:
        file = self.path / _FORMAT_FILE
        if create and not file.exists():
            self._make()
        written = self._format().get("format")
        if not isinstance(written, int) or written < 1:
            raise FolderUnusableError(f"{file}: has no valid format number")
        if written > FORMAT:
            raise FormatTooNewError(
                f"{self.path}: has format {written}; this segmentd reads up to format {FORMAT}, use a newer one"
            )

    def _format(self) -> dict[str, object]:
        file = self.path / _FORMAT_FILE
        try:
            written = json.loads(file.read_bytes())
            written["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise FolderUnusableError(f"{file}: is damaged: {error}") from error
        except OSError as error:
            raise FolderUnusableError(f"{file}: {error.strerror or error}") from error
        return dict(written)

    def _make(self) -> None:
        if (self.path / "index").exists() or (self.path / "journal").exists():
            raise FolderUnusableError(f"{self.path}: holds a store but no format.json; is it damaged?")
        self._write_format({"format": FORMAT})
        self._name_format()
        # A power cut must not leave the folders without the file that says what they are.
        sync_folder(self.path)
        for made in (self.path / "journal", self.path / "index"):
            made.mkdir(exist_ok=True)
        sync_folder(self.path)
        sync_way_to(self.path)

    def _write_format(self, content: dict[str, object]) -> None:
        with (self.path / _FORMAT_PART).open("w") as out:
            json.dump(content, out)
            out.flush()
            os.fsync(out.fileno())

    def _name_format(self) -> None:
        (self.path / _FORMAT_PART).rename(self.path / _FORMAT_FILE)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        if (path / "data.mdb").exists():
            raise
        # Who opened it for reading just now has made a lock file anew, which says nothing and goes the next time.
        log.warning("an old folder without data remains", path=str(path), reason=str(error))


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_way_to(path: Path) -> None:
    """Make the name of a folder durable, and those of all folders on the way to it, which may be as new."""
    for folder in path.resolve().parents:
        try:
            sync_folder(folder)
        except PermissionError:
            # Whoever may not even look into it has made nothing in it.
            continue
