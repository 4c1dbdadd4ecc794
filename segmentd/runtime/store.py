"""The embedded store: shard actors in memory, a committer, a journal and an index in LMDB, all on this machine.

Implements the seam (`segmentd.runtime.seam`); above it nobody knows which store runs.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog
import trio

from segmentd.domain.events import Change
from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, find, v_of, v_of_word
from segmentd.domain.placement import shard_of, split
from segmentd.domain.refusals import Overloaded
from segmentd.domain.shard import Shard, load, packed_of
from segmentd.runtime.audiences import AudienceTable, Deletion
from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.committer import Committer
from segmentd.runtime.deletions import Deletions
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.mailbox import Reply
from segmentd.runtime.members import LocalMembers
from segmentd.runtime.pacing import Pacing
from segmentd.runtime.publication import Publication
from segmentd.runtime.router import Router
from segmentd.runtime.scrubbing import Scrubbing
from segmentd.runtime.seam import StoreStats
from segmentd.runtime.shards import actors_of
from segmentd.runtime.wholelists import WholeLists
from segmentd.runtime.write import CommitObserver, CommitWatch, Write
from segmentd.settings import LimitsSettings, MembersSettings, RuntimeSettings, StorageSettings
from segmentd.storage.checkpointer import arguments_of
from segmentd.storage.folder import DataFolder
from segmentd.storage.recovery import Recovered, recover
from segmentd.storage.visible import Visible

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LocalStore:
    """The embedded store. Open it, run `run` as a task, `close` it; `run` returns when all that was taken is done."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        storage: StorageSettings,
        runtime: RuntimeSettings,
        limits: LimitsSettings,
        observer: CommitObserver,
        visible: Visible | None = None,
        watch: CommitWatch | None = None,
    ) -> None:
        """Opens the environments; `recover` comes before everything else. visible: the page of followers, if any.

        Raises StorageError, OSError.
        """
        # What a scrub was killed over.
        folder.remove_other_generations()
        self._folder = folder
        self._runtime = runtime
        self._storage = storage
        self._journal, self._index = folder.open_journal(), folder.open_index()
        self.environments = (self._journal, self._index)
        """For whoever looks after their readers."""
        self._sizes: defaultdict[int, int] = defaultdict(int)
        self._shards = [Shard(self._sizes) for _ in range(runtime.shards)]
        self._audiences = AudienceTable(limits.audiences_max)
        self._deletions = Deletions(self._audiences)
        self._gate = Gate(self._index.salt())
        self.interludes = Interludes()
        """To be filled by whoever is to have a turn between two slices of a write."""
        self._actors = actors_of(self._shards, runtime, self.interludes)
        self._router = Router(self._actors, runtime.slice_changes_max, self.interludes)
        self._pacing = Pacing(storage.paced_journal_bytes)
        self.publication = Publication(visible)
        self.on_new_generation: Callable[[str], Awaitable[None]] | None = None
        """Called by a scrub with the generation that is valid now; all others are to be closed when it returns."""
        self.checkpointing = Checkpointing(
            self._journal,
            arguments_of(folder.path, storage),
            observer,
            journal_bytes=storage.checkpoint_journal_bytes,
            seconds_max=storage.checkpoint_seconds_max,
            published=lambda: self.publication.record,
            swept=self._deletions.swept,
            folded=self._pacing.folded,
        )
        self.committer = self._committer(observer, watch)
        self.kind_numbers = self._index.kind_numbers
        self.lists = self._whole_lists()

    def _committer(self, observer: CommitObserver, watch: CommitWatch | None) -> Committer:
        runtime = self._runtime
        return Committer(
            self._append,
            self._router,
            self._audiences,
            self._gate,
            self.publication,
            observer,
            committed=self.checkpointing.committed,
            watch=watch,
            pause_seconds=lambda changes: self._pacing.pause_seconds(changes, self._journal.bytes_held),
            queue_requests_max=runtime.commit_queue_requests_max,
            queue_changes_max=runtime.commit_queue_changes_max,
            group_changes_max=runtime.group_changes_max,
            retry_after_seconds=runtime.retry_after_seconds,
        )

    def _whole_lists(self) -> WholeLists:
        return WholeLists(
            packed_of=packed_of(self._shards),
            audiences=self._audiences,
            gate=self._gate,
            committer=self.committer,
            router=self._router,
            journal=self._journal,
            checkpointing=self.checkpointing,
            index_path=lambda: self._index.path,
            storage=self._storage,
        )

    def recover(self) -> Recovered:
        """Load the state, once, before `run`. Blocking. Raises StorageError."""
        recovered = recover(
            self._journal,
            self._index,
            load=partial(load, self._shards),
            begin_fold=lambda begun: self._sizes.update(begun.sizes),
            fold=self._fold_recovered,
            forget=self._forget_recovered,
            progress=lambda count: log.info("recovering", identifiers=count),
        )
        self._deletions.load(recovered.audiences, recovered.deleted, self._shards, self.checkpointing)
        self._audiences.freshness = recovered.freshness
        self._gate.load(recovered.floors.items(), recovered.forgotten.items())
        self.checkpointing.folded_seq = recovered.folded_seq
        self.publication.resume(self._journal.last_seq)
        return recovered

    async def apply(self, changes: Sequence[Change]) -> None:
        """See MembershipStore."""
        if changes:
            await self.submit(changes).wait()

    def submit(self, changes: Sequence[Change]) -> Reply[None]:
        """See MembershipStore."""
        self.check_room(len(changes))  # Before audiences get their numbers: what is refused leaves nothing behind.
        write = Write(changes=self._audiences.words(changes))
        self.committer.submit(write)
        return write.reply

    async def delete_audience(self, audience: str, now_ms: int) -> Deletion | None:
        """See MembershipStore."""
        number = self._audiences.number(audience)
        if number is None:
            return None
        self.check_room()
        floor = max(v_of(now_ms, True), self._gate.floors.get(number, 0))

        def sweep() -> None:
            # Not after the wait: whoever asked may have gone by then.
            self.checkpointing.unswept.add(number)
            self.checkpointing.wake()

        write = Write(deleted=[(number, floor, now_ms)], visible=sweep)
        self.committer.submit(write)
        await write.reply.wait()
        return self._audiences.deletions[number]

    async def deletion(self, number: int) -> Deletion | None:
        """See MembershipStore."""
        return self._audiences.deletions.get(number)

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        """See MembershipStore."""
        self.check_room()
        write = Write(forgotten=[(key, now_ms) for key in keys])
        self.committer.submit(write)
        await write.reply.wait()

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """See MembershipReader."""
        words = self._shard(key).words(key)
        if not words:
            return [None] * len(audiences)
        number = self._audiences.number
        found: list[int | None] = []
        for audience in audiences:
            its_number = number(audience)
            found.append(None if its_number is None else find(words, its_number))
        return found

    async def memberships_of(self, key: bytes) -> dict[str, int]:
        """See MembershipStore."""
        return self.memberships(key)

    def memberships(self, key: bytes) -> dict[str, int]:
        """See MembershipReader."""
        words = self._shard(key).words(key)
        dead = self._audiences.deletions
        return {self._audiences.id(word >> V_BITS): v_of_word(word) for word in words if word >> V_BITS not in dead}

    def size(self, audience: str) -> int:
        """See MembershipReader."""
        number = self._audiences.number(audience)
        return 0 if number is None else self._sizes.get(number, 0)

    def stats(self) -> StoreStats:
        """See MembershipStore."""
        return StoreStats(
            identifiers=sum(shard.identifiers() for shard in self._shards),
            memberships=sum(shard.memberships for shard in self._shards),
            audiences=len(self._audiences),
            journal_records=self._journal.records_held,
            journal_bytes=self._journal.bytes_held,
            commits_waiting=self.committer.waiting,
            unfolded_records=max(0, self._journal.last_seq - self.checkpointing.folded_seq),
        )

    def failure(self) -> str | None:
        """See MembershipStore."""
        return self.committer.failure

    def reader(self, kinds: Mapping[str, int], settings: MembersSettings) -> LocalMembers:
        """What reads members from the index. kinds: high-confidence identifier names with their numbers."""
        return LocalMembers(
            self._index,
            self._audiences,
            self._gate,
            self._sizes,
            self.checkpointing.barrier,
            self._storage,
            kinds=kinds,
            settings=settings,
            retry_after_seconds=self._runtime.retry_after_seconds,
        )

    async def scrub(self) -> None:
        """Replace the files by ones in which nothing that was deleted or forgotten is left, while all goes on.

        One at a time. Raises ScrubFailedError, then the old files stand.
        """
        await Scrubbing(
            self._folder,
            self._journal,
            self._index,
            self.checkpointing,
            self.committer,
            arguments_of(self._folder.path, self._storage),
            swapped=lambda: self._deletions.look_again(self._index, self.checkpointing),
            moved=self.on_new_generation,
        ).scrub()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the actors until `close` was called and everything taken is on disk and visible."""
        async with trio.open_nursery() as checkpoints:
            checkpoints.start_soon(self.checkpointing.run)
            async with trio.open_nursery() as shards:
                for actor in self._actors:
                    shards.start_soon(actor.run)
                task_status.started()
                await self.committer.run()
                self._router.close()
            checkpoints.cancel_scope.cancel()

    def close(self) -> None:
        """Refuse new writes from now on; `run` ends when the taken ones are done."""
        self.committer.close()

    def close_environments(self) -> None:
        """Close LMDB; after `run` has returned."""
        self._index.close()
        self._journal.close()

    def check_room(self, changes: int = 1) -> None:
        """See MembershipStore."""
        self.committer.check_room(changes)
        # What may be cut is cut by the next append, so one must get through, or the journal would stay full for ever.
        cuts = self._journal.oldest_seq <= self.checkpointing.cut_to
        if self._journal.bytes_held > self._storage.journal_bytes_max and not cuts:
            raise Overloaded("The journal is full until a checkpoint ends.", self._runtime.retry_after_seconds)

    def _shard(self, key: bytes) -> Shard:
        return self._shards[shard_of(key, len(self._shards))]

    def _append(self, blob: bytes) -> int:
        return self._journal.append(blob, cut_to=self.checkpointing.cut_to)

    def _fold_recovered(self, changes: Sequence[tuple[bytes, int]]) -> None:
        for number, part in split(changes, len(self._shards)):
            self._shards[number].merge(part)

    def _forget_recovered(self, key: bytes, forgotten_ms: int) -> None:
        self._shard(key).forget(key)
        self._gate.forget(self._gate.mark(key), forgotten_ms)
