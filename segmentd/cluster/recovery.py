"""What a new owner of a partition may have lost is given back before anybody reads or writes there.

When the cluster elects a replica that had not received the last writes, they are in this node's outbox. So for every
slot whose owner is another one than before, jobs are held, the partition is fenced and what the outbox has for it is
merged again; then they go on. What other nodes have in their outboxes they send themselves, at the same moment.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from segmentd.cluster.audiences import Audiences
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import Keyspace
from segmentd.cluster.layout import Layout
from segmentd.cluster.outbox import Outbox
from segmentd.cluster.registry import Registry, fence_job
from segmentd.cluster.servers import Servers
from segmentd.cluster.writes import Merging
from segmentd.domain.membership import V_BITS
from segmentd.domain.refusals import StoreUnavailable
from segmentd.domain.shard import Word
from segmentd.storage.errors import StorageError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PIECE_CHANGES: Final = 1_000
_PAUSE_SECONDS: Final = 0.2


class Recovery:
    """An actor: `run` as a task."""

    def __init__(
        self,
        servers: Servers,
        keyspace: Keyspace,
        audiences: Audiences,
        registry: Registry,
        merging: Merging,
        outbox: Outbox,
        *,
        writes: Dispatcher,
        held: Sequence[Dispatcher],
        patience_seconds: float,
    ) -> None:
        """held: the dispatchers whose jobs wait meanwhile."""
        self._servers = servers
        self._keyspace = keyspace
        self._audiences = audiences
        self._registry = registry
        self._merging = merging
        self._outbox = outbox
        self._writes = writes
        self._held = held
        self._patience_seconds = patience_seconds
        self._owners: dict[int, str] = {}
        """partition → the owner that has everything."""
        self._behind: set[int] = set()
        self._wake = trio.Event()
        self.recovered = 0
        """Changes that were sent again so far."""
        servers.on_layout.append(self._layout_changed)

    async def start(self) -> None:
        """Give the cluster what an earlier process of this node has left in the outbox. Raises StoreUnavailable."""
        await self._registry.register(await self._outbox.entries())
        self._layout_changed(self._servers.layout)
        while self._behind:
            await self._recover()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._behind:
                await self._recover()

    def _layout_changed(self, _layout: Layout) -> None:
        for partition, slot in enumerate(self._keyspace.slots):
            owner = self._servers.owner_of(slot)
            if owner is not None and owner.node_id != self._owners.get(partition):
                self._behind.add(partition)
                for dispatcher in self._held:
                    dispatcher.held.add(slot)
        if self._behind:
            self._wake.set()

    async def _recover(self) -> None:
        partitions = set(self._behind)
        owners = {partition: self._servers.owner_of(self._keyspace.slots[partition]) for partition in partitions}
        try:
            await self._registry.refresh()
            sent = await self._give_back(partitions)
        except (StoreUnavailable, StorageError) as error:
            log.warning(
                "a new owner is not up to date yet; trying again", partitions=len(partitions), reason=str(error)
            )
            await trio.sleep(_PAUSE_SECONDS)
            return
        self.recovered += sent
        done = set()
        for partition, owner in owners.items():
            if owner is not None and owner == self._servers.owner_of(self._keyspace.slots[partition]):
                self._owners[partition] = owner.node_id
                done.add(partition)
        self._behind -= done
        for dispatcher in self._held:
            dispatcher.release({self._keyspace.slots[partition] for partition in done})
        log.info("owners are up to date", partitions=len(done), changes=sent)

    async def _give_back(self, partitions: set[int]) -> int:
        """Returns how many changes were sent. Raises StoreUnavailable, StorageError."""
        partition_of = self._keyspace.partition_of
        changes = await self._outbox.changes(lambda key: partition_of(key) in partitions)
        found: defaultdict[tuple[int, int | None], list[Word]] = defaultdict(list)
        for change in changes:
            number = self._audiences.by_token(change.token)
            if number is not None:
                word = number << V_BITS | change.v
                found[partition_of(change.key), change.taken_ms].append((change.key, word))
        deadline = trio.current_time() + self._patience_seconds
        version = self._registry.version
        jobs = [fence_job(self._keyspace, partition, version, deadline) for partition in partitions]
        for (partition, taken_ms), words in found.items():
            for at in range(0, len(words), _PIECE_CHANGES):
                piece = words[at : at + _PIECE_CHANGES]
                jobs.append(self._merging.job(partition, piece, taken_ms, deadline, 0))
        for job in jobs:
            self._writes.submit(job, first=True)
        for job in jobs:
            await job.reply.wait()
        return len(changes)
