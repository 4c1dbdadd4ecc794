"""Copying a store while it is served, and bringing a copy back.

A copy is a data folder itself: index, journal, keys, no lock. It is made by any process that can read the folder, with
no help of the server: the journal is copied first and the index after it. Records are cut only when the index has them,
so whatever was cut before the journal was copied is in the index that is copied later, and everything that was
acknowledged before the backup began is in one of the two. Import jobs and requests to forget are not copied: what they
did is in the store, and what is still on its way can be sent again.

A folder gets its name only when all of it is on disk, so a killed backup or restore leaves `<name>.part` and no more.
"""

import os
import shutil
from contextlib import closing
from pathlib import Path

from segmentd.storage.check import CheckReport, check
from segmentd.storage.errors import FolderUnusableError, StorageError
from segmentd.storage.failpoints import hit
from segmentd.storage.folder import DataFolder, sync_folder, sync_way_to
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal

_KEPT_FILES = ("keys.json",)


def back_up(folder: DataFolder, target: Path, *, journal_map_bytes: int) -> int:
    """Copy the store into `target`, which must not exist or be empty. Returns the bytes of the copy.

    folder: opened with or without the lock. Blocking. Raises FolderUnusableError.
    """
    part = _begin(target)
    try:
        for name in ("journal", "index"):
            (part / name).mkdir(mode=0o700)
        with closing(folder.open_journal(read_only=True)) as journal:
            journal.copy_to(part / "journal")
        hit("backing_up")
        with closing(folder.open_index(read_only=True)) as index:
            index.copy_to(part / "index")
        _trim(part, journal_map_bytes, index)
        folder.write_format_to(part)
        for name in _KEPT_FILES:
            if (folder.path / name).exists():
                shutil.copy2(folder.path / name, part / name)
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        _end(part, target)
    except (OSError, StorageError) as error:
        # What is there of it takes room, perhaps the last there was.
        shutil.rmtree(part, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FolderUnusableError(f"{target}: the backup failed: {reason}") from error
    return size


def restore(source: Path, target: Path, *, journal_map_bytes: int, index_map_bytes: int) -> CheckReport:
    """Copy a backup into `target`, which must not exist or be empty, and verify the copy.

    With any difference in the report, `target` was not made. Blocking. Raises StorageError.
    """
    if not (source / "format.json").exists():
        raise FolderUnusableError(f"{source}: this is no backup of segmentd (format.json is missing)")
    part = _begin(target)
    try:
        shutil.copytree(source, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock", "lock.mdb", "*.part"))
        with DataFolder(
            part, journal_map_bytes=journal_map_bytes, index_map_bytes=index_map_bytes, create=False
        ) as folder:
            # Opened for writing once, so that LMDB makes the lock files that readers need.
            folder.open_journal().close()
            folder.open_index().close()
            report = check(folder)
        if report.differences_total:
            shutil.rmtree(part)
        else:
            _end(part, target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FolderUnusableError(f"{target}: the restore failed: {error.strerror or error}") from error
    except StorageError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return report


def _begin(target: Path) -> Path:
    """The folder to make a copy in. Raises FolderUnusableError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderUnusableError(f"{target}: is there already and not empty")
    part = target.with_name(f"{target.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise FolderUnusableError(f"{part}: {error.strerror or error}") from error
    return part


def _trim(part: Path, journal_map_bytes: int, index: Index) -> None:
    """Cut what the copied index has from the copied journal, so that the one goes on where the other ends."""
    copied = Index(part / "index", map_bytes=index.map_bytes, read_only=False)
    with copied.reading() as txn:
        folded_seq = copied.folded_seq(txn)
    copied.close()
    journal = Journal(part / "journal", map_bytes=journal_map_bytes)
    journal.cut(folded_seq)
    journal.close()


def _end(part: Path, target: Path) -> None:
    """Have everything on disk, and only then under its name."""
    for path in part.rglob("*"):
        if path.is_dir():
            sync_folder(path)
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(part)
    part.rename(target)
    sync_way_to(target)
