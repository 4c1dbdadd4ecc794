"""Where requests to forget are noted: never with an identifier."""

from pathlib import Path
from typing import Protocol

import msgspec

from segmentd.domain.forgetting import ForgetJob
from segmentd.runtime.threads import in_thread
from segmentd.storage.errors import StorageError
from segmentd.storage.forgetjobs import ForgetJobs


class ForgetNotes(Protocol):
    """The notes of one node, and what it may know of others. All raise OSError, StoreUnavailable, Overloaded."""

    async def write(self, job: ForgetJob) -> None:
        """Make the request durable as it is."""

    async def remove(self, request_id: str) -> None:
        """Remove a request; one that is not there is no error."""

    async def load(self) -> list[ForgetJob]:
        """The requests that this node took, oldest first. Raises StorageError as well."""

    async def elsewhere(self, request_id: str) -> ForgetJob | None:
        """The request of another node, None if there is none."""

    async def staged_imports(self) -> set[str]:
        """The ids of imports, on whichever node, whose lists are on disk and may name whoever is to be forgotten."""


class FolderNotes:
    """Notes in a data folder, of the only node that there is. Implements ForgetNotes."""

    def __init__(self, data: Path) -> None:
        self._files = ForgetJobs(data)

    async def write(self, job: ForgetJob) -> None:
        """See ForgetNotes."""
        await in_thread(self._files.write, job)

    async def remove(self, request_id: str) -> None:
        """See ForgetNotes."""
        await in_thread(self._files.remove, request_id)

    async def load(self) -> list[ForgetJob]:
        """See ForgetNotes."""
        try:
            return await in_thread(self._files.load)
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(f"the requests to forget cannot be read: {error}") from error

    async def elsewhere(self, request_id: str) -> ForgetJob | None:  # noqa: ARG002  # there is no elsewhere
        """See ForgetNotes."""
        return None

    async def staged_imports(self) -> set[str]:
        """See ForgetNotes."""
        return await in_thread(self._files.staged_imports)
