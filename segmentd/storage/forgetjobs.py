"""Requests to forget on disk: `<data>/compliance/<request id>.json`, replaced whole. They never hold an identifier.

Blocking: call in a worker thread.
"""

import os
import secrets
import time
from pathlib import Path

import msgspec

from segmentd.domain.forgetting import ForgetJob
from segmentd.storage.errors import FolderUnusableError
from segmentd.storage.folder import sync_folder


def new_request_id() -> str:
    """Sorts by time; unique by chance as well."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(8)}"


class ForgetJobs:
    """All requests of a data folder, and the imports that may hold what they are about."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "compliance"

    def write(self, job: ForgetJob) -> None:
        """Make the job durable as it is. Raises OSError."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        file = self._path / f"{job.id}.json"
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            out.write(msgspec.json.encode(job))
            out.flush()
            os.fsync(out.fileno())
        part.rename(file)
        sync_folder(self._path)
        sync_folder(self._data)

    def remove(self, job_id: str) -> None:
        """Remove a job; one that is not there is no error."""
        (self._path / f"{job_id}.json").unlink(missing_ok=True)

    def load(self) -> list[ForgetJob]:
        """All jobs, oldest first. Raises OSError, FolderUnusableError."""
        if not self._path.exists():
            return []
        return [_read(file) for file in sorted(self._path.glob("*.json"))]

    def staged_imports(self) -> set[str]:
        """The ids of imports that have anything but their job on disk."""
        imports = self._data / "imports"
        if not imports.exists():
            return set()
        return {
            folder.name
            for folder in imports.iterdir()
            if folder.is_dir() and any(path.name != "job.json" for path in folder.iterdir())
        }


def _read(file: Path) -> ForgetJob:
    try:
        return msgspec.json.decode(file.read_bytes(), type=ForgetJob)
    except msgspec.DecodeError as error:
        raise FolderUnusableError(
            f"{file}: is damaged: {error}; put the file back from a backup of the folder,"
            " or remove it and ask to forget the same identifier again"
        ) from error
