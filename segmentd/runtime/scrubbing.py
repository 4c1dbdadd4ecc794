"""Scrubbing: replacing the store's files by ones in which nothing deleted is left, while everything goes on.

Commits pause while the last records are folded and the files are swapped, which takes milliseconds; everything that
takes longer happens before, in a child process (`segmentd.storage.scrubber`).
"""

import secrets
from collections.abc import Callable

import structlog
import trio

from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.children import Child, ChildDiedError, child
from segmentd.runtime.committer import Committer
from segmentd.storage.checkpointer import CheckpointerArguments
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
    ) -> None:
        """swapped: called when the store stands on its new files, before commits and folds go on."""
        self._folder = folder
        self._journal = journal
        self._index = index
        self._checkpointing = checkpointing
        self._committer = committer
        self._arguments = arguments
        self._swapped = swapped

    async def scrub(self) -> None:
        """Have new files for everything that is committed now. Raises ScrubFailedError, StorageError."""
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
                        async with self._committer.paused():
                            seq = await _ask(scrubber, b"finish\n")
                            self._swap(generation, seq)
        except ChildDiedError as error:
            raise ScrubFailedError(f"the scrubber died: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._folder.remove_other_generations)
        log.info("scrubbed", seconds=round(trio.current_time() - start, 3))

    def _swap(self, generation: str, seq: int) -> None:
        """Nothing else runs meanwhile: this does not wait, and the commits are paused."""
        self._folder.take_generation(generation)
        self._folder.reopen(self._journal, self._index)
        self._journal.continue_after(seq)
        self._checkpointing.replaced(seq)
        self._swapped()


async def _ask(scrubber: Child, command: bytes) -> int:
    await scrubber.send(command)
    report = await scrubber.answer(ScrubReport)
    if report.error is not None:
        raise ScrubFailedError(report.error)
    return report.seq
