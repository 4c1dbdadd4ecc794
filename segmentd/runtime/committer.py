"""The committer: all writes that wait now become one journal record, one fsync, and then visible.

Owns: the order of writes. Invariants: (1) nothing is shown or acknowledged before its record is on disk; (2) a write is
in one record whole; (3) a write that is refused is in no record; (4) one commit at a time, in a worker thread; (5) a
record is published to followers before anything of it is shown here, and acknowledged after all of it is.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
import trio

from segmentd.domain.gate import Gate
from segmentd.domain.refusals import Overloaded, ShuttingDown, StoreUnavailable
from segmentd.runtime.audiences import AudienceTable
from segmentd.runtime.committhread import CommitThread
from segmentd.runtime.mailbox import Mailbox, MailboxClosedError
from segmentd.runtime.publication import Publication
from segmentd.runtime.router import Router
from segmentd.runtime.write import CommitObserver, CommitWatch, Write
from segmentd.storage.errors import StoreFailureError, StoreFullError
from segmentd.storage.failpoints import hit, wait
from segmentd.storage.records import JournalRecord, encode_record

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_STOPPED: Final = "Writing has stopped after a storage failure"
_NOT_WRITTEN: Final = f"{_STOPPED}; see the log."
# It cannot be taken back: a note that it does not count would have to be written to the disk that has just failed.
_OUTCOME_UNKNOWN: Final = (
    f"{_STOPPED}, and whether this request was applied will show after a restart. Send the identical request again:"
    " that is right in both cases."
)


class AppendRecord(Protocol):
    """Makes one record durable and returns its number; blocking. Raises StoreFullError, StoreFailureError."""

    def __call__(self, blob: bytes, /) -> int: ...


class Committer:
    """An actor. `submit` from anywhere on the loop, `run` as its task."""

    def __init__(
        self,
        append: AppendRecord,
        router: Router,
        audiences: AudienceTable,
        gate: Gate,
        publication: Publication,
        observer: CommitObserver,
        *,
        committed: Callable[[], None],
        pause_seconds: Callable[[int], float] = lambda _changes: 0.0,
        watch: CommitWatch | None = None,
        queue_requests_max: int,
        queue_changes_max: int,
        group_changes_max: int,
        retry_after_seconds: int,
    ) -> None:
        """audiences: its numbers that no record holds yet go into the next one. committed: called after each commit.

        pause_seconds: how long to wait after a group of so many changes (`segmentd.runtime.pacing`).
        """
        self._append = append
        self._router = router
        self._audiences = audiences
        self._gate = gate
        self._publication = publication
        self._observer = observer
        self._committed = committed
        self._pause_seconds = pause_seconds
        self._watch = watch
        self._hurried = trio.Event()
        self._group_changes_max = group_changes_max
        self._retry_after_seconds = retry_after_seconds
        self._inbox: Mailbox[Write] = Mailbox(messages_max=queue_requests_max, weight_max=queue_changes_max)
        self._limiter = trio.CapacityLimiter(1)
        self._thread: CommitThread[tuple[int, int]] = CommitThread()
        self.failure: str | None = None
        """Why nothing is written any more, once a commit failed with an unknown outcome."""

    @property
    def waiting(self) -> int:
        """How many writes wait for a commit."""
        return len(self._inbox)

    def check_open(self) -> None:
        """Raises StoreUnavailable after a failure."""
        if self.failure is not None:
            raise StoreUnavailable(_NOT_WRITTEN, self._retry_after_seconds)

    def check_room(self, changes: int) -> None:
        """Raises what `submit` of so many changes would raise now, before anything is prepared for it."""
        self.check_open()
        if self._inbox.closed:
            raise ShuttingDown("The service is shutting down.", self._retry_after_seconds)
        if not self._inbox.has_room(max(1, changes)):
            raise Overloaded("Too many writes are waiting; send it again.", self._retry_after_seconds)

    def submit(self, write: Write) -> None:
        """Queue a write. Raises Overloaded, ShuttingDown, StoreUnavailable; then nothing of it is applied."""
        changes = len(write.changes) + len(write.imported)
        self.check_room(changes)
        self._inbox.put_nowait(write, max(1, changes))
        if self._watch is not None:
            self._watch.queued(write)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """No commit runs inside; writes gather."""
        async with self._limiter:
            yield

    def hurry(self) -> None:
        """The service stops: what waits is committed without pauses from now on."""
        self._hurried.set()

    def close(self) -> None:
        """Refuse new writes; those that wait are still committed."""
        self._inbox.close()

    async def run(self) -> None:
        """Until closed and drained."""
        self._thread.start()
        try:
            while True:
                try:
                    group = await self._inbox.take(weight_max=self._group_changes_max)
                except MailboxClosedError:
                    return
                await self._commit(group)
        finally:
            self._thread.close()

    async def _commit(self, group: list[Write]) -> None:
        if self._watch is not None:
            self._watch.begun(group)
        if self.failure is not None:
            self._refuse(group, _NOT_WRITTEN)
            return
        record = self._record(group)
        hit("before_commit")
        start = trio.current_time()
        try:
            seq, size = await self._written(record)
        except StoreFullError as error:
            self._observer.commit_failed()
            log.error("commit refused", reason=str(error), writes=len(group))
            self._refuse(group, f"The store is full: {error}")
            return
        except StoreFailureError as error:
            self.failure = str(error)
            self._observer.commit_failed()
            log.critical("commit failed; no more writes are taken until a restart", reason=str(error))
            self._refuse(group, _OUTCOME_UNKNOWN)
            return
        self._publication.publish(seq)
        self._audiences.saved(len(record.audiences))
        self._audiences.freshness.note(record.changes)
        self._raise_gate(record)
        seconds = trio.current_time() - start
        changes = [*record.changes, *record.imported] if record.imported else record.changes
        self._observer.committed(requests=len(group), changes=len(changes), journal_bytes=size, seconds=seconds)
        self._committed()
        hit("after_commit_before_merge")
        await self._router.dispatch(changes, record.forgotten, lambda: self._acknowledge(group, seq))
        if record.deleted:
            await self._drop([number for number, _, _ in record.deleted])
        if pause := self._pause_seconds(len(changes)):
            with trio.move_on_after(pause):
                await self._hurried.wait()

    def _record(self, group: list[Write]) -> JournalRecord:
        """One record of all that is wanted, without what is too old to count."""
        record = JournalRecord(audiences=self._audiences.unsaved())
        for number, audience_id in record.audiences:
            if floor := self._audiences.inherited_floor(audience_id):
                record.floors.append((number, floor))
                # Before the changes of this very record, which are the first that the new audience gets.
                self._gate.raise_floor(number, floor)
        for write in group:
            record.changes.extend(self._gate.admit(write.changes))
            record.imported.extend(self._gate.admit(write.imported, write.taken_ms))
            record.segments.extend(write.segments)
            record.floors.extend(write.floors)
            record.forgotten.extend(write.forgotten)
            record.deleted.extend(write.deleted)
        return record

    def _raise_gate(self, record: JournalRecord) -> None:
        """From the next record on, what is older than this one's floors, forgettings and deletions does not count."""
        for audience, v in record.floors:
            self._gate.raise_floor(audience, v)
        for key, forgotten_ms in record.forgotten:
            self._gate.forget(self._gate.mark(key), forgotten_ms)
        for number, floor, deleted_ms in record.deleted:
            self._gate.deleted.add(number)
            self._audiences.delete(number, floor, deleted_ms)

    async def _drop(self, numbers: Sequence[int]) -> None:
        """Have the shards drop deleted audiences, which nobody sees any more; nobody waits for it."""

        def dropped() -> None:
            for number in numbers:
                self._audiences.deletions[number].in_memory = False

        await self._router.drop(frozenset(numbers), dropped)

    async def _written(self, record: JournalRecord) -> tuple[int, int]:
        """`_write` in the thread, as soon as no pause is on. Raises StoreFullError, StoreFailureError."""
        try:
            self._limiter.acquire_nowait()  # `acquire` costs a whole turn of the loop, also where nobody has it
        except trio.WouldBlock:
            await self._limiter.acquire()
        try:
            return await self._thread.run(lambda: self._write(record))
        finally:
            self._limiter.release()

    def _write(self, record: JournalRecord) -> tuple[int, int]:
        """Returns the record's number and its size in bytes."""
        if self.failure is not None:
            # A scrub failed while this waited for its end.
            raise StoreFailureError(self.failure)
        blob = encode_record(record)
        wait("slow_commit")
        return self._append(blob), len(blob)

    def _acknowledge(self, group: list[Write], seq: int) -> None:
        """All of record `seq` is merged."""
        hit("after_merge_before_reply")
        if self._watch is not None:
            self._watch.ended(group, failed=False)
        for write in group:
            if write.visible is not None:
                write.visible()
            write.reply.set(None)
        self._publication.shown(seq)

    def _refuse(self, group: list[Write], message: str) -> None:
        if self._watch is not None:
            self._watch.ended(group, failed=True)
        for write in group:
            write.reply.fail(StoreUnavailable(message, self._retry_after_seconds))
