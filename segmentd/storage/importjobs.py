"""Import jobs on disk: one folder for each, and in it the job's truth.

```
<data>/imports/<job id>/job.json    replaced whole (write, fsync, rename, fsync of the folder)
<data>/imports/<job id>/staged      the distinct values of the list, sorted, one a line
<data>/imports/<job id>/sweep-...   members to disqualify, see `importscan`
```

A folder without job.json is an upload that was never answered or was refused, and so is one with a job that has not
ended and has no list: the list is on disk before job.json is, and goes after it. Both are removed at the next start.
What is besides job.json goes as soon as the job has ended. Blocking: call in a worker thread.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from segmentd.domain.importjob import ImportJob
from segmentd.storage.errors import FolderUnusableError
from segmentd.storage.folder import sync_folder

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_JOB: Final = "job.json"
_STAGED: Final = "staged"


def new_job_id() -> str:
    """Sorts by time; unique by chance as well."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}"


class JobFolder:
    """All jobs of a data folder."""

    def __init__(self, data: Path) -> None:
        self._path = data / "imports"

    def staged(self, job_id: str) -> Path:
        """Where the sorted values of a job are."""
        return self._path / job_id / _STAGED

    def sweep(self, job_id: str, name: str) -> Path:
        """Where the members to disqualify are."""
        return self._path / job_id / name

    def make(self, job_id: str) -> None:
        """Make the folder of a new upload. Raises OSError."""
        (self._path / job_id).mkdir(mode=0o700, parents=True)
        # The folder of all jobs may be new as well.
        sync_folder(self._path.parent)

    def remove(self, job_id: str) -> None:
        """Remove all of a job, durably where the disk allows it; what is not there is no error."""
        folder = self._path / job_id
        # First that it is a job at all, so that no crash leaves one without its list.
        with suppress(OSError):
            (folder / _JOB).unlink()
            sync_folder(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def write(self, job_id: str, encoded: bytes) -> None:
        """Replace job.json, durably. Raises OSError."""
        folder = self._path / job_id
        part = folder / f"{_JOB}.part"
        with part.open("wb") as out:
            out.write(encoded)
            out.flush()
            os.fsync(out.fileno())
        part.rename(folder / _JOB)
        sync_folder(folder)
        sync_folder(self._path)

    def drop_staged(self, job_id: str) -> None:
        """Remove everything of a job but job.json. Raises OSError."""
        for path in (self._path / job_id).iterdir():
            if path.name != _JOB:
                path.unlink(missing_ok=True)

    def load(self) -> Iterator[ImportJob]:
        """Every job, oldest first; removes uploads that were never answered, and leftovers.

        Raises OSError; FolderUnusableError where a job cannot be read: it was promised, so nothing of it is removed.
        """
        if not self._path.exists():
            return
        for folder in sorted(self._path.iterdir()):
            try:
                job = msgspec.json.decode((folder / _JOB).read_bytes(), type=ImportJob)
            except (FileNotFoundError, NotADirectoryError):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            except msgspec.DecodeError as error:
                raise FolderUnusableError(
                    f"{folder / _JOB}: is damaged: {error}; put the file back from a backup of the folder,"
                    f" or remove {folder} and import its list again"
                ) from error
            if job.is_ended:
                self.drop_staged(job.id)
            elif not self.staged(job.id).exists():
                log.warning("an import that was refused is removed", job=job.id)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            yield job
