"""Scrubbing: replacing the store's files by ones in which nothing deleted is left, while everything goes on.

Commits pause while the last records are folded and the files are swapped, which takes milliseconds; everything that
takes longer happens before, in a child process (`segmentd.storage.scrubber`).
"""

import secrets
from collections.abc import Awaitable, Callable

import structlog
import trio

from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.children import Child, ChildDiedError, child
from segmentd.runtime.committer import Committer
from segmentd.runtime.threads import in_thread
from segmentd.storage.checkpointer import CheckpointerArguments
from segmentd.storage.errors import StorageError, StoreFailureError
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal
from segmentd.storage.scrubber import ScrubberArguments, ScrubReport

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ScrubFailedError(Exception):
    """Nothing was replaced; trying again later is right."""


class Scrubbing:
    """One scrub at a time."""

    def __init__(
        self,
        folder: DataFolder,
        journal: Journal,
        index: Index,
        checkpointing: Checkpointing,
        committer: Committer,
        arguments: CheckpointerArguments,
        *,
        swapped: Callable[[], None],
        moved: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """swapped: called when the store stands on its new files, before commits and folds go on.

        moved: called with the new generation when they go on; followers close the old files meanwhile.
        """
        self._folder = folder
        self._journal = journal
        self._index = index
        self._checkpointing = checkpointing
        self._committer = committer
        self._arguments = arguments
        self._swapped = swapped
        self._moved = moved

    async def scrub(self) -> None:
        """Have new files for everything that is committed now.

        Raises ScrubFailedError; StoreFailureError, after which nothing is written until a restart; OSError.
        """
        self._check_writing()
        generation = secrets.token_hex(8)
        arguments = ScrubberArguments(
            path=self._arguments.path,
            journal_map_bytes=self._arguments.journal_map_bytes,
            index_map_bytes=self._arguments.index_map_bytes,
            changes_max=self._arguments.changes_max,
            generation=generation,
        )
        start = trio.current_time()
        try:
            with self._checkpointing.cuts_held():
                await self._checkpointing.barrier()
                async with child("segmentd.storage.scrubber", arguments) as scrubber:
                    await _ask(scrubber, b"copy\n")
                    async with self._checkpointing.suspended():
                        await _ask(scrubber, b"fold\n")
                        await in_thread(self._folder.prepare_generation, generation)
                        async with self._committer.paused():
                            seq = await _ask(scrubber, b"finish\n")
                            self._swap(generation, seq)
        except BaseException as error:
            try:
                await self._remove_others()
            except (StorageError, OSError) as another:
                # The next scrub or start removes them; why this one failed matters more.
                log.warning("files of a failed scrub remain", reason=str(another))
            if isinstance(error, ChildDiedError):
                raise ScrubFailedError(f"the scrubber died: {error}") from error
            raise
        if self._moved is not None:
            await self._moved(generation)
        # If they cannot be removed, what was forgotten is still there.
        await self._remove_others()
        log.info("scrubbed", seconds=round(trio.current_time() - start, 3))

    def _swap(self, generation: str, seq: int) -> None:
        """Nothing else runs meanwhile: this does not wait, and the commits are paused."""
        self._check_writing()
        if seq < self._journal.last_seq:
            raise ScrubFailedError(f"the new index lacks record {self._journal.last_seq}; it ends with {seq}")
        try:
            self._folder.take_generation()
            self._folder.reopen(self._journal, self._index, generation)
            self._journal.continue_after(seq)
            self._checkpointing.replaced(seq)
            self._swapped()
        except Exception as error:
            # A restart may find either generation, so a record in the one or the other would not be safe.
            reason = f"a scrub failed while it replaced the files, only a restart helps: {error}"
            self._committer.failure = reason
            log.critical("scrub failed; no more writes are taken until a restart", reason=str(error))
            raise StoreFailureError(reason) from error

    async def _remove_others(self) -> None:
        with trio.CancelScope(shield=True):
            opened = self._journal.path, self._index.path
            await in_thread(self._folder.remove_other_generations, *opened)

    def _check_writing(self) -> None:
        """What is on disk beyond the last commit is known only as long as none failed."""
        if self._committer.failure is not None:
            raise ScrubFailedError(f"writing has stopped: {self._committer.failure}")


async def _ask(scrubber: Child, command: bytes) -> int:
    await scrubber.send(command)
    report = await scrubber.answer(ScrubReport)
    if report.error is not None:
        raise ScrubFailedError(report.error)
    return report.seq
