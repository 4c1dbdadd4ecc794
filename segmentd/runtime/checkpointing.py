"""Keeping the journal short: tells the checkpointer (a child process) when to fold, and knows how far it came.

Invariants: (1) the journal may be cut up to `folded_seq` and no further; (2) a checkpointer that dies is started again,
later each time; it can lose nothing, because a fold is one transaction.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import structlog
import trio

from segmentd.runtime.children import Child, ChildDiedError, child
from segmentd.runtime.write import CommitObserver
from segmentd.storage.checkpointer import CheckpointerArguments, FoldReport

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_RESTART_SECONDS_FIRST = 0.2
_RESTART_SECONDS_MAX = 10.0


class JournalDepth(Protocol):
    """What decides whether it is time."""

    @property
    def bytes_held(self) -> int: ...
    @property
    def last_seq(self) -> int: ...


class CheckpointerProcess:
    """Conversation with the child."""

    def __init__(self, started: Child) -> None:
        self._child = started

    async def fold(self, seq: int) -> FoldReport:
        """Have everything folded up to journal record `seq`. Raises ChildDiedError."""
        return await self._ask(b"fold %d\n" % seq)

    async def sweep(self) -> FoldReport:
        """Have one step of the sweep of deleted audiences done. Raises ChildDiedError."""
        return await self._ask(b"sweep\n")

    async def _ask(self, command: bytes) -> FoldReport:
        if not await self._child.send(command):
            raise ChildDiedError("it does not listen")
        return await self.report()

    async def report(self) -> FoldReport:
        """The next report. Raises ChildDiedError."""
        return await self._child.answer(FoldReport)


@asynccontextmanager
async def checkpointer_process(arguments: CheckpointerArguments) -> AsyncIterator[CheckpointerProcess]:
    """Run the child. At the end a fold that is under way may end; if it does not, killing it is safe."""
    async with child("segmentd.storage.checkpointer", arguments, patient=True) as started:
        yield CheckpointerProcess(started)


class Checkpointing:
    """An actor: `run` as its task, `barrier` from anywhere on the loop."""

    def __init__(
        self,
        journal: JournalDepth,
        arguments: CheckpointerArguments,
        observer: CommitObserver,
        *,
        journal_bytes: int,
        seconds_max: float,
        published: Callable[[], int] | None = None,
        swept: Callable[[int], None] = lambda _: None,
        folded: Callable[[int, float], None] = lambda _changes, _seconds: None,
    ) -> None:
        """journal_bytes, seconds_max: fold when the journal holds so much, or when so much time has passed.

        published: up to which record may be folded, None: all; nothing else may be seen in the index.
        swept: called with the number of a deleted audience when the index holds nothing of it any more.
        folded: called with the changes and the seconds of each fold.
        """
        self._journal = journal
        self._arguments = arguments
        self._observer = observer
        self._journal_bytes = journal_bytes
        self._seconds_max = seconds_max
        self.folded_seq = 0
        """The index stands for this sequence number; set by recovery first."""
        self.unswept: set[int] = set()
        """Deleted audiences that the index may still hold something of; add to it and call `wake`."""
        self._published = published or (lambda: journal.last_seq)
        self._swept = swept
        self._folded = folded
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._held_seqs: list[int] = []
        self._resume: trio.Event | None = None
        self._stopped = trio.Event()

    @property
    def cut_to(self) -> int:
        """Up to here records may be cut from the journal."""
        return min([self.folded_seq, *self._held_seqs])

    @contextmanager
    def cuts_held(self) -> Iterator[None]:
        """Keep every record that is in the journal and not folded yet, folded later or not."""
        held = self.folded_seq
        self._held_seqs.append(held)
        try:
            yield
        finally:
            self._held_seqs.remove(held)

    @asynccontextmanager
    async def suspended(self) -> AsyncIterator[None]:
        """No checkpointer runs inside; barriers wait."""
        self._resume = resume = trio.Event()
        self._stopped = trio.Event()
        self._wake.set()
        try:
            await self._stopped.wait()
            yield
        finally:
            self._resume = None
            resume.set()

    def replaced(self, seq: int) -> None:
        """Another index stands in the place of the old one, as of `seq`; call it while suspended."""
        self.folded_seq = seq
        self._call_barriers()

    def committed(self) -> None:
        """The journal has grown: is it time?"""
        if self._journal.bytes_held >= self._journal_bytes:
            self._wake.set()

    def wake(self) -> None:
        """There is something to do now."""
        self._wake.set()

    async def barrier(self) -> int:
        """Wait until the index holds everything that is in the journal now. Returns its sequence number."""
        target = self._journal.last_seq
        while self.folded_seq < target:
            self._wake.set()
            await self._progress.wait()
        return self.folded_seq

    async def run(self) -> None:
        """Until cancelled."""
        pause = _RESTART_SECONDS_FIRST
        while True:
            if self._resume is not None:
                self._stopped.set()
                await self._resume.wait()
            try:
                async with checkpointer_process(self._arguments) as process:
                    while self._resume is None:
                        await self._due()
                        await self._fold_all(process)
                        await self._sweep(process)
                        pause = _RESTART_SECONDS_FIRST
                continue
            except ChildDiedError as error:
                self._observer.checkpoint_failed()
                # What it was asked for is still wanted; whoever waits at a barrier must not wait for the next time.
                self._wake.set()
                log.error("checkpointer died; starting it again", reason=str(error), seconds=pause)
            await trio.sleep(pause)
            pause = min(pause * 2, _RESTART_SECONDS_MAX)

    async def _due(self) -> None:
        while True:
            with trio.move_on_after(0 if self.unswept else self._seconds_max):
                await self._wake.wait()
            self._wake = trio.Event()
            if self.unswept or self._resume is not None:
                return
            if self._journal.last_seq > self.folded_seq:
                return

    async def _fold_all(self, process: CheckpointerProcess) -> None:
        report = await process.fold(self._published())
        while True:
            if report.error is not None:
                self._observer.checkpoint_failed()
                log.error("checkpoint failed", reason=report.error)
                await trio.sleep(_RESTART_SECONDS_FIRST)
                self._call_barriers()
                return
            self.folded_seq = max(self.folded_seq, report.seq)
            self._observer.checkpointed(changes=report.changes, seconds=report.seconds)
            self._folded(report.changes, report.seconds)
            self._call_barriers()
            if not report.more:
                return
            report = await process.report()

    def _call_barriers(self) -> None:
        """Have everybody at a barrier look where the index is, and ask for another fold where that is not enough."""
        self._progress.set()
        self._progress = trio.Event()

    async def _sweep(self, process: CheckpointerProcess) -> None:
        """Sweep until nothing is left or somebody wants a fold, which comes first."""
        while self.unswept and not self._wake.is_set() and self._resume is None:
            report = await process.sweep()
            if report.error is not None:
                log.error("sweeping failed", reason=report.error)
                await trio.sleep(_RESTART_SECONDS_FIRST)
                return
            ended = self.unswept.intersection(report.swept)
            for number in ended:
                self.unswept.discard(number)
                self._swept(number)
            if report.more:
                continue
            if not ended:
                # What is to be swept is not folded yet; asking at once and again would only heat the core.
                with trio.move_on_after(_RESTART_SECONDS_FIRST):
                    await self._wake.wait()
            return
