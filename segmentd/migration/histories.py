"""What a data folder remembers of imports and of requests to forget. A node of a cluster has such a folder too."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.importjob import ImportJob
from segmentd.storage.forgetjobs import ForgetJobs
from segmentd.storage.importjobs import JobFolder


class Histories:
    """Blocking."""

    def __init__(self, data: Path) -> None:
        self._jobs = JobFolder(data)
        self._requests = ForgetJobs(data)

    def jobs(self) -> list[ImportJob]:
        """Of all imports. Raises OSError, StorageError."""
        return list(self._jobs.load())

    def requests(self) -> list[ForgetJob]:
        """All requests to forget. Raises OSError, StorageError."""
        return self._requests.load()

    def add(self, jobs: Sequence[ImportJob], requests: Sequence[ForgetJob]) -> None:
        """Remember these too. Raises OSError, StorageError."""
        there = {job.id for job in self.jobs()}
        for job in jobs:
            if job.id not in there:
                self._jobs.make(job.id)
                self._jobs.write(job.id, msgspec.json.encode(job))
        for request in requests:
            self._requests.write(request)


def unfinished(jobs: Sequence[ImportJob], requests: Sequence[ForgetJob]) -> list[str]:
    """What is still to be done, in words."""
    imports = [f"the import {job.id} has not ended" for job in jobs if not job.is_ended]
    return imports + [
        f"the request to forget {request.id} is not completed" for request in requests if request.state != "completed"
    ]
