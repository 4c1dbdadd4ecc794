"""The store in a cluster. Implements the seam (`segmentd.runtime.seam`); above it nobody knows which store runs.

Invariants: (1) 202 means merged by the primaries of all partitions concerned, on the disks of as many replicas as the
configuration says, and in this node's outbox; (2) whoever reads afterwards, on any node, sees it; (3) what is deleted
or forgotten is registered and fenced before anything of it is removed, so that no node brings it back.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import trio

from segmentd.cluster.audiences import Audiences, deletion_entry, forgotten_entry
from segmentd.cluster.connected import Connected
from segmentd.cluster.figures import Figures
from segmentd.cluster.health import Health
from segmentd.cluster.naming import Naming
from segmentd.cluster.outbox import Outbox
from segmentd.cluster.reads import Reads
from segmentd.cluster.recovery import Recovery
from segmentd.cluster.registry import ConflictError, Entry
from segmentd.cluster.removal import Removal
from segmentd.cluster.writes import Merging, Write, Writes
from segmentd.domain.events import Change
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import StoreUnavailable
from segmentd.domain.shard import Word
from segmentd.runtime.audiences import Deletion
from segmentd.runtime.mailbox import Reply
from segmentd.runtime.seam import AwaitedReader, Found, StoreStats, Wanted
from segmentd.runtime.write import CommitObserver
from segmentd.settings import LimitsSettings, RuntimeSettings, StoreSettings
from segmentd.storage.errors import StorageError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

OUTBOX_FOLDER: Final = "outbox"
_DELETE_TRIES_MAX: Final = 50
_HEALTH_SECONDS_MIN: Final = 1.0
"""People and load balancers look no oftener, and each round asks every server."""


class ClusterStore(AwaitedReader):
    """Start `run` as a task; it has started when the cluster was found and is up to date. `close` ends it."""

    def __init__(
        self,
        folder: Path,
        *,
        store: StoreSettings,
        runtime: RuntimeSettings,
        limits: LimitsSettings,
        observer: CommitObserver,
    ) -> None:
        """folder: where the outbox is. Raises StorageError, OSError."""
        self._settings = store
        self._runtime = runtime
        self._limits = limits
        self._observer = observer
        self._outbox = Outbox(folder / OUTBOX_FOLDER, map_bytes=store.outbox_map_bytes)
        self.connected = Connected(store, runtime, self._record)
        self.registry = self.connected.registry

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `close` was called and everything taken is settled. Raises WeakClusterError, ClusterUnusableError."""
        try:
            async with trio.open_nursery() as nursery:
                await self.connected.open(nursery)
                self._put_together()
                nursery.start_soon(self._rotate)
                await self._up_to_date()
                nursery.start_soon(self.recovery.run)
                await self.recovery.settled()
                for task in (self.removal.run, self.figures.run, self.health.run):
                    nursery.start_soon(task)
                async with trio.open_nursery() as newcomers:
                    self.naming.start(newcomers)
                    task_status.started()
                    await self.writes.run()
                nursery.cancel_scope.cancel()
        finally:
            self._outbox.close()

    def _put_together(self) -> None:
        connected, runtime = self.connected, self._runtime
        space, registry = connected.keyspace, self.registry
        self.audiences = Audiences(registry, connected.salt, self._limits.audiences_max)
        self.merging = Merging(space, self.audiences, registry)
        self.writes = Writes(
            space,
            self.audiences,
            self.merging,
            connected.writes,
            self._outbox,
            self._observer,
            queue_requests_max=runtime.commit_queue_requests_max,
            queue_changes_max=runtime.commit_queue_changes_max,
            group_changes_max=runtime.group_changes_max,
            retry_after_seconds=runtime.retry_after_seconds,
        )
        self.naming = Naming(
            self.audiences,
            registry,
            self.writes,
            requests_max=runtime.commit_queue_requests_max,
            changes_max=runtime.commit_queue_changes_max,
            retry_after_seconds=runtime.retry_after_seconds,
        )
        self._put_reads_together()

    def _put_reads_together(self) -> None:
        connected, store, runtime = self.connected, self._settings, self._runtime
        space, registry = connected.keyspace, self.registry
        self.reads = Reads(
            space,
            self.audiences,
            registry,
            connected.reads,
            patience_seconds=store.acknowledge_seconds_max,
            running_max=store.reads_running_max,
            retry_after_seconds=runtime.retry_after_seconds,
        )
        self.recovery = Recovery(
            connected.servers,
            space,
            self.audiences,
            registry,
            self.merging,
            self._outbox,
            writes=connected.writes,
            held=(connected.writes, connected.reads),
            patience_seconds=store.acknowledge_seconds_max,
        )
        self.removal = Removal(connected, self.audiences, patience_seconds=store.acknowledge_seconds_max)
        self.health = Health(
            connected,
            self.recovery,
            self.reads,
            self._outbox.bytes_held,
            (connected.writes, connected.reads),
            seconds=max(_HEALTH_SECONDS_MIN, store.layout_seconds),
        )
        self.figures = Figures(connected, self.audiences, self.reads, store.figures_seconds)

    async def _up_to_date(self) -> None:
        while True:
            try:
                await self.recovery.start()
            except (StoreUnavailable, StorageError) as error:
                log.warning("what this node sent before could not be sent again yet", reason=str(error))
                await trio.sleep(self._settings.layout_seconds)
            else:
                return

    def close(self) -> None:
        """Refuse new writes from now on; `run` ends when the taken ones are settled."""
        self.writes.close()

    def check_room(self, changes: int = 1) -> None:
        """See MembershipStore."""
        self.writes.check_room(changes)

    async def apply(self, changes: Sequence[Change]) -> None:
        """See MembershipStore. A request is atomic for each partition alone."""
        if changes:
            await self.submit(changes).wait()

    def submit(self, changes: Sequence[Change]) -> Reply[None]:
        """See MembershipStore."""
        self.check_room(len(changes))
        reply: Reply[None] = Reply()
        self.naming.submit(changes, reply, self._deadline())
        return reply

    async def write(self, words: Sequence[Word], taken_ms: int) -> None:
        """Have changes of a list applied, durably and visibly. taken_ms: of the list. Raises what `apply` raises."""
        reply: Reply[None] = Reply()
        self.writes.submit(Write(words, taken_ms, self._deadline(), reply))
        await reply.wait()

    async def register_audiences(self, audience_ids: set[str]) -> None:
        """Have them exist. Raises StoreUnavailable."""
        await self.naming.register(audience_ids)

    async def memberships_of(self, key: bytes) -> dict[str, int]:
        """See MembershipStore."""
        return await self.reads.memberships(key)

    async def fetch(self, wanted: Wanted) -> Found:
        """See AwaitedReader."""
        return await self.reads.fetch(wanted)

    async def delete_audience(self, audience: str, now_ms: int) -> Deletion | None:
        """See MembershipStore."""
        await self.registry.refresh()
        for _ in range(_DELETE_TRIES_MAX):
            number = self.audiences.number(audience)
            if number is None:
                return None
            floor = max(v_of(now_ms, True), self.audiences.floor(audience))
            times = self.audiences.deleted_times(audience)
            entry = deletion_entry(audience, times, floor, now_ms)
            try:
                # Another node may have deleted it a moment ago, with another floor.
                await self.registry.register([entry._replace(expected=entry.rank - 1)])
            except ConflictError:
                continue
            await self.registry.fence(self.connected.keyspace)
            self.removal.wake()
            return self.audiences.deletions[number]
        raise StoreUnavailable("Other nodes change this audience all the time.", self._runtime.retry_after_seconds)

    async def deletion(self, number: int) -> Deletion | None:
        """See MembershipStore."""
        await self.registry.refresh()
        return next((found for found in self.audiences.deletions.values() if found.number == number), None)

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        """See MembershipStore."""
        mark = self.audiences.gate.mark
        await self.registry.register([forgotten_entry(mark(key), now_ms) for key in keys])
        await self.registry.fence(self.connected.keyspace)
        await self.removal.forget(keys)

    def stats(self) -> StoreStats:
        """See MembershipStore."""
        return StoreStats(
            identifiers=self.figures.identifiers,
            memberships=self.figures.memberships,
            audiences=len(self.audiences),
            commits_waiting=self.writes.waiting,
        )

    def failure(self) -> str | None:
        """See MembershipStore."""
        return self.writes.failure

    def _deadline(self) -> float:
        return trio.current_time() + self._settings.acknowledge_seconds_max

    async def _rotate(self) -> None:
        while True:
            await trio.sleep(self._settings.outbox_seconds)
            try:
                await self._outbox.rotate()
            except (StorageError, OSError) as error:
                log.error("the outbox cannot begin a new journal", reason=str(error))

    async def _record(self, entries: Sequence[Entry]) -> None:
        try:
            await self._outbox.append(entries=entries)
        except StorageError as error:
            raise StoreUnavailable(
                f"The outbox cannot be written: {error}", self._runtime.retry_after_seconds
            ) from error
