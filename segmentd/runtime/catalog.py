"""The catalog actor: the segments, one write after the other.

Owns the segment table. A write is planned against the table as it is, journalled, and folded in when it is durable, so
a revision check and what follows from it cannot be torn apart. Reads are plain calls on the published table.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from segmentd.domain.refusals import Overloaded, Refusal, ShuttingDown
from segmentd.domain.segments import Segment, SegmentDefinition, SegmentRecord, SegmentTable, segment_of
from segmentd.runtime.committer import Committer
from segmentd.runtime.mailbox import Mailbox, MailboxClosedError, MailboxFullError, Reply
from segmentd.runtime.write import Write

COMMANDS_WAITING_MAX = 256
"""Segment writes are rare; more than this is a client gone wild, and gets 503."""

Plan = Callable[[], SegmentRecord | None]


class Command(msgspec.Struct, frozen=True):
    """One write: how it is planned, and where its outcome (what was folded, or None for no change) goes."""

    plan: Plan
    reply: Reply[SegmentRecord | None]


class Catalog:
    """`put` and `delete` from anywhere on the loop, `run` as its task."""

    def __init__(self, committer: Committer, *, segments_max: int, retry_after_seconds: int) -> None:
        self._committer = committer
        self._table = SegmentTable(segments_max)
        self._retry_after_seconds = retry_after_seconds
        self._inbox: Mailbox[Command] = Mailbox(messages_max=COMMANDS_WAITING_MAX)
        self.segments: Mapping[str, Segment] = self._table.present

    def load(self, records: Iterable[SegmentRecord]) -> None:
        """Take over the segments of the store."""
        for record in records:
            self._table.fold(record)

    def segment_ids(self) -> list[str]:
        """Sorted ids; shared, not to be changed."""
        return self._table.segment_ids()

    async def put(self, segment_id: str, definition: SegmentDefinition, if_match: int | None) -> tuple[Segment, bool]:
        """Create or update, durably. segment_id: normalised. if_match: the revision it must have, or None.

        Returns the segment and whether it was created.
        Raises RevisionMismatch, LimitReached, Overloaded, ShuttingDown, StoreUnavailable.
        """
        before: Segment | None = None

        def plan() -> SegmentRecord | None:
            nonlocal before
            before = self.segments.get(segment_id)
            return self._table.plan_put(segment_id, definition, if_match, _now_ms())

        record = await self._command(plan)
        if record is None and before is not None:
            return before, False
        assert record is not None  # noqa: S101  # nothing to change means that it was there
        return segment_of(record, definition), before is None

    async def delete(self, segment_id: str, if_match: int | None) -> list[str]:
        """Delete, durably. Returns the ids that remain, sorted. Raises SegmentNotFound and what `put` raises."""
        await self._command(lambda: self._table.plan_delete(segment_id, if_match, _now_ms()))
        return list(self.segment_ids())

    def close(self) -> None:
        """Refuse new writes; those that wait are still done."""
        self._inbox.close()

    async def run(self) -> None:
        """Until closed and drained."""
        while True:
            try:
                commands = await self._inbox.take()
            except MailboxClosedError:
                return
            for command in commands:
                await self._execute(command)

    async def _command(self, plan: Plan) -> SegmentRecord | None:
        command = Command(plan=plan, reply=Reply())
        try:
            self._inbox.put_nowait(command)
        except MailboxFullError:
            raise Overloaded("Too many segment writes are waiting.", self._retry_after_seconds) from None
        except MailboxClosedError:
            raise ShuttingDown("The service is shutting down.", self._retry_after_seconds) from None
        return await command.reply.wait()

    async def _execute(self, command: Command) -> None:
        try:
            record = command.plan()
            if record is not None:
                step = record
                write = Write(segments=[step], visible=lambda: self._table.fold(step))
                self._committer.submit(write)
                await write.reply.wait()
        except Refusal as refusal:
            command.reply.fail(refusal)
            return
        command.reply.set(record)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
