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
from segmentd.cluster.batches import Job
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import Keyspace
from segmentd.cluster.layout import Layout, Owner
from segmentd.cluster.outbox import Outbox, Sent
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
    """An actor: `start`, then `run` as a task."""

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
        self._busy: set[int] = set()
        self._wake = trio.Event()
        self._changed = trio.Event()
        self.recovered = 0
        """Changes that were sent again so far."""
        self.last_at: float | None = None
        """When a new owner was brought up to date last (Trio's clock), None: never since the start."""
        servers.on_layout.append(self._layout_changed)

    async def start(self) -> None:
        """Give the registry what an earlier process of this node has left in the outbox; `run` gives the rest.

        Raises StoreUnavailable, StorageError.
        """
        await self._registry.register(await self._outbox.entries())
        self._layout_changed(self._servers.layout)

    async def settled(self) -> None:
        """Wait until every owner has everything."""
        while self._behind:
            await self._changed.wait()

    async def run(self) -> None:
        """Until cancelled. Each owner has a task of its own: one that is away does not keep the others waiting."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                for owner, partitions in self._due().items():
                    self._busy |= partitions
                    nursery.start_soon(self._bring_up_to_date, owner, partitions)

    def _layout_changed(self, _layout: Layout) -> None:
        for partition, slot in enumerate(self._keyspace.slots):
            owner = self._servers.owner_of(slot)
            if owner is not None and owner.node_id != self._owners.get(partition):
                self._behind.add(partition)
                for dispatcher in self._held:
                    dispatcher.held.add(slot)
        if self._behind:
            self._wake.set()

    def _due(self) -> dict[Owner, set[int]]:
        """Partitions that nobody is busy with, by their owners; one without an owner waits for the next layout."""
        due: defaultdict[Owner, set[int]] = defaultdict(set)
        for partition in self._behind - self._busy:
            owner = self._servers.owner_of(self._keyspace.slots[partition])
            if owner is not None:
                due[owner].add(partition)
        return due

    async def _bring_up_to_date(self, owner: Owner, partitions: set[int]) -> None:
        try:
            await self._registry.refresh()
            sent = await self._give_back(partitions)
        except (StoreUnavailable, StorageError) as error:
            log.warning(
                "a new owner is not up to date yet; trying again",
                server=str(owner.address),
                partitions=len(partitions),
                reason=str(error),
            )
            await trio.sleep(_PAUSE_SECONDS)
        else:
            self._done(owner, partitions, sent)
        self._busy -= partitions
        if self._behind:
            self._wake.set()

    def _done(self, owner: Owner, partitions: set[int], sent: int) -> None:
        self.recovered += sent
        slots = self._keyspace.slots
        done = {partition for partition in partitions if self._servers.owner_of(slots[partition]) == owner}
        self._owners.update(dict.fromkeys(done, owner.node_id))
        self._behind -= done
        for dispatcher in self._held:
            dispatcher.release({slots[partition] for partition in done})
        self._changed.set()
        self._changed = trio.Event()
        self.last_at = trio.current_time()
        log.info("an owner is up to date", server=str(owner.address), partitions=len(done), changes=sent)

    async def _give_back(self, partitions: set[int]) -> int:
        """Returns how many changes were sent. Raises StoreUnavailable, StorageError."""
        partition_of = self._keyspace.partition_of
        version = self._registry.version
        deadline = self._deadline()
        await self._all([fence_job(self._keyspace, partition, version, deadline) for partition in partitions])
        sent = 0

        async def send(changes: list[Sent]) -> None:
            nonlocal sent
            sent += len(changes)
            await self._all(self._jobs(changes))

        await self._outbox.replay(lambda key: partition_of(key) in partitions, send)
        return sent

    def _jobs(self, changes: Sequence[Sent]) -> list[Job]:
        found: defaultdict[tuple[int, int | None], list[Word]] = defaultdict(list)
        for change in changes:
            number = self._audiences.by_token(change.token)
            if number is not None:
                word = number << V_BITS | change.v
                found[self._keyspace.partition_of(change.key), change.taken_ms].append((change.key, word))
        deadline = self._deadline()
        return [
            self._merging.job(partition, words[at : at + _PIECE_CHANGES], taken_ms, deadline, 0)
            for (partition, taken_ms), words in found.items()
            for at in range(0, len(words), _PIECE_CHANGES)
        ]

    async def _all(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._writes.submit(job, first=True)
        for job in jobs:
            await job.reply.wait()

    def _deadline(self) -> float:
        return trio.current_time() + self._patience_seconds
