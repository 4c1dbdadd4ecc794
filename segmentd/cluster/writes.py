"""Writes on their way: all that wait become one group, one record of the outbox, and one call for each partition.

Owns the order: what may be acknowledged has been merged by every partition that it concerns, is on the disks of enough
replicas, and is in the outbox. A partition that is slow or away holds up only the writes that concern it; how much may
be on its way at once is bounded. A request is atomic for each partition, not over several: one that is not answered
with success may be there in part, and is sent again.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import msgpack
import structlog
import trio

from segmentd.cluster.audiences import Audiences
from segmentd.cluster.batches import Job
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import Keyspace
from segmentd.cluster.link import Command
from segmentd.cluster.outbox import Outbox, Sent
from segmentd.cluster.registry import Registry
from segmentd.domain.membership import V_BITS, v_of_word
from segmentd.domain.refusals import Overloaded, ShuttingDown, StoreUnavailable
from segmentd.domain.shard import Word
from segmentd.runtime.mailbox import Mailbox, MailboxClosedError, Reply
from segmentd.runtime.write import CommitObserver
from segmentd.storage.errors import StorageError, StoreFullError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_FIXED_KEYS: Final = 3


class DeletedMeanwhileError(StoreUnavailable):
    """An event is newer than the deletion of its audience, so it is for another audience of the same id."""

    def __init__(self) -> None:
        super().__init__("The audience was deleted at the same moment; send it again.", 1)


class Write:
    """What one request wants."""

    __slots__ = ("_again", "_parts", "deadline", "reply", "taken_ms", "words")

    def __init__(
        self,
        words: Sequence[Word],
        taken_ms: int | None,
        deadline: float,
        reply: Reply[None],
        again: Callable[[], None] | None = None,
    ) -> None:
        """taken_ms: of the list that it comes from, None for events. again: instead of DeletedMeanwhileError."""
        self.words = words
        self.taken_ms = taken_ms
        self.deadline = deadline
        self.reply = reply
        self._again = again
        self._parts = 0

    def expect(self, parts: int) -> None:
        """So many things must be done before it is."""
        self._parts = parts

    def done(self, error: Exception | None) -> None:
        """One of them is done, or has failed."""
        if self._parts <= 0:
            return
        if error is not None:
            self._parts = 0
            if self._again is not None and isinstance(error, DeletedMeanwhileError):
                self._again()
            else:
                self.reply.fail(error)
            return
        self._parts -= 1
        if not self._parts:
            self.reply.set(None)


class Merging:
    """Builds the calls that merge changes."""

    def __init__(self, keyspace: Keyspace, audiences: Audiences, registry: Registry) -> None:
        self._keyspace = keyspace
        self._audiences = audiences
        self._registry = registry

    def job(
        self,
        partition: int,
        words: Sequence[Word],
        taken_ms: int | None,
        deadline: float,
        weight: int,
        *,
        is_new: bool = False,
    ) -> Job:
        """weight: see `Job`. is_new: events that were never acknowledged; may fail with DeletedMeanwhileError."""

        def commands() -> list[Command]:
            # Anew for each attempt: what the registry has learnt since may void some of it.
            if is_new and self._audiences.came_late(words):
                raise DeletedMeanwhileError
            admitted = self._audiences.admitted(words, taken_ms)
            return [self._call(partition, admitted, is_events=taken_ms is None)] if admitted else []

        return Job(self._keyspace.slots[partition], commands, deadline, weight=weight)

    def _call(self, partition: int, words: Sequence[Word], *, is_events: bool) -> Command:
        space = self._keyspace
        positions: dict[bytes, int] = {}
        packed: list[object] = []
        prefix = space.user_prefixes[partition]
        token_of = self._audiences.token
        for key, word in words:
            token = token_of(word >> V_BITS)
            user = positions.setdefault(prefix + key, len(positions) + _FIXED_KEYS + 1)
            members = positions.setdefault(space.members(partition, token), len(positions) + _FIXED_KEYS + 1)
            packed += (user, members, token, key, str(v_of_word(word)))
        keys = (space.fences[partition], space.counts[partition], space.latest[partition], *positions)
        return (
            b"FCALL",
            b"segmentd_merge",
            str(len(keys)).encode(),
            *keys,
            str(self._registry.version).encode(),
            b"1" if is_events else b"0",
            msgpack.packb(packed, use_bin_type=False),
        )


class Writes:
    """An actor: `submit` from anywhere on the loop, `run` as its task."""

    def __init__(
        self,
        keyspace: Keyspace,
        audiences: Audiences,
        merging: Merging,
        dispatcher: Dispatcher,
        outbox: Outbox,
        observer: CommitObserver,
        *,
        queue_requests_max: int,
        queue_changes_max: int,
        group_changes_max: int,
        retry_after_seconds: int,
    ) -> None:
        self._keyspace = keyspace
        self._audiences = audiences
        self._merging = merging
        self._dispatcher = dispatcher
        self._outbox = outbox
        self._observer = observer
        self._queue_changes_max = queue_changes_max
        self._group_changes_max = group_changes_max
        self._retry_after_seconds = retry_after_seconds
        self._inbox: Mailbox[Write] = Mailbox(messages_max=queue_requests_max, weight_max=queue_changes_max)
        self._on_the_way = 0
        """Changes that were sent and are not settled."""
        self._settled = trio.Event()
        self.failure: str | None = None
        """Why nothing is written any more: the outbox is in doubt."""

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent."""
        return len(self._inbox)

    def check_room(self, changes: int) -> None:
        """Raises what `submit` of so many changes would raise now."""
        if self.failure is not None:
            raise StoreUnavailable(f"The outbox cannot be written: {self.failure}", self._retry_after_seconds)
        if self._inbox.closed:
            raise ShuttingDown("The service is shutting down.", self._retry_after_seconds)
        if not self._inbox.has_room(max(1, changes)):
            raise Overloaded("Too many writes are waiting; send it again.", self._retry_after_seconds)

    def submit(self, write: Write) -> None:
        """Raises Overloaded, ShuttingDown, StoreUnavailable; then nothing of it is applied."""
        self.check_room(len(write.words))
        self._inbox.put_nowait(write, max(1, len(write.words)))

    def close(self) -> None:
        """Refuse new writes; `run` returns when the taken ones are settled."""
        self._inbox.close()

    async def run(self) -> None:
        """Until closed and settled."""
        while True:
            try:
                group = await self._inbox.take(weight_max=self._group_changes_max)
            except MailboxClosedError:
                break
            await self._send(group)
            await self._on_the_way_below(self._queue_changes_max)
        await self._on_the_way_below(1)

    async def _on_the_way_below(self, changes: int) -> None:
        while self._on_the_way >= changes:
            self._settled = trio.Event()
            await self._settled.wait()

    async def _send(self, group: list[Write]) -> None:
        started = trio.current_time()
        parts = self._parts(group)
        counts: defaultdict[int, int] = defaultdict(int)
        for _, _, writes, _ in parts:
            for write in writes:
                counts[id(write)] += 1
        for write in group:
            write.expect(counts[id(write)] + 1)
        for partition, taken_ms, writes, words in parts:
            deadline = max(write.deadline for write in writes)
            job = self._merging.job(partition, words, taken_ms, deadline, len(words), is_new=taken_ms is None)
            self._on_the_way += len(words)
            job.reply.then(self._settling(writes, len(words)))
            self._dispatcher.submit(job)
        await self._record(group)
        changes = sum(len(write.words) for write in group)
        seconds = trio.current_time() - started
        self._observer.committed(requests=len(group), changes=changes, journal_bytes=0, seconds=seconds)

    def _parts(self, group: list[Write]) -> list[tuple[int, int | None, list[Write], list[Word]]]:
        """(partition, taken_ms, the writes that it concerns, its changes)."""
        partition_of = self._keyspace.partition_of
        found: dict[tuple[int, int | None], tuple[dict[int, Write], list[Word]]] = {}
        for write in group:
            for word in write.words:
                place = (partition_of(word[0]), write.taken_ms)
                writes, words = found.setdefault(place, ({}, []))
                writes[id(write)] = write
                words.append(word)
        return [(place[0], place[1], list(writes.values()), words) for place, (writes, words) in found.items()]

    def _settling(self, writes: list[Write], weight: int) -> Callable[[Exception | None], None]:
        def settled(error: Exception | None) -> None:
            self._on_the_way -= weight
            self._settled.set()
            for write in writes:
                write.done(error)

        return settled

    async def _record(self, group: list[Write]) -> None:
        token_of = self._audiences.token
        sent = [
            Sent(key, token_of(word >> V_BITS), v_of_word(word), write.taken_ms)
            for write in group
            for key, word in write.words
        ]
        error: Exception | None = None
        try:
            await self._outbox.append(sent)
        except StorageError as problem:
            self._observer.commit_failed()
            log.error("the outbox cannot be written", reason=str(problem))
            if not isinstance(problem, StoreFullError):
                # After a failed fsync nobody knows what of the file is on disk, and a later one may seem to succeed.
                self.failure = str(problem)
            error = StoreUnavailable(
                f"The outbox cannot be written: {problem}. Whether this was applied is unknown; send it again.",
                self._retry_after_seconds,
            )
        for write in group:
            write.done(error)
