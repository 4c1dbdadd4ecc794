"""Whether the cluster answers: every server is asked again and again, and what other actors count is put together.

Nothing is decided by it but what people and load balancers are told. A node is away only when no partition is left that
answers: while a part of the cluster fails over, the rest goes on being served.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import trio
from coredis.exceptions import RedisError

from segmentd.cluster.batches import RETRY_REASONS
from segmentd.cluster.connected import Connected
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.layout import Owner
from segmentd.cluster.link import Address, Command, LinkDownError
from segmentd.cluster.reads import Reads
from segmentd.cluster.recovery import Recovery
from segmentd.runtime.clusterhealth import ClusterHealth, ServerHealth

_ASK_SECONDS_MAX: Final = 1.0


class Health:
    """An actor: `run` as a task. Implements `segmentd.runtime.clusterhealth.SeesCluster`."""

    def __init__(
        self,
        connected: Connected,
        recovery: Recovery,
        reads: Reads,
        outbox_bytes: Callable[[], int],
        dispatchers: Sequence[Dispatcher],
        *,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """seconds: between two rounds. clock: seconds since the epoch."""
        self._connected = connected
        self._recovery = recovery
        self._reads = reads
        self._outbox_bytes = outbox_bytes
        self._dispatchers = dispatchers
        self._seconds = seconds
        self._clock = clock
        self._silent: set[Address] = set()
        self._away_since: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._round()
            await trio.sleep(self._seconds)

    def away(self) -> str | None:
        """See SeesCluster."""
        if self._away_since is None:
            return None
        seconds = self._clock() - self._away_since
        return f"The cluster is away: none of its servers has answered for {seconds:.0f} s."

    def report(self) -> ClusterHealth:
        """See SeesCluster."""
        registry = self._connected.registry
        retries = Counter[str](dict.fromkeys(RETRY_REASONS, 0))
        for dispatcher in self._dispatchers:
            retries.update(dispatcher.retries)
        last = self._recovery.last_at
        return ClusterHealth(
            servers=self._servers(),
            partitions=self._connected.keyspace.partitions,
            partitions_away=self._partitions_away(),
            registry_version=registry.version,
            registry_age_seconds=round(trio.current_time() - registry.read_at, 3),
            registry_failures=registry.failures,
            outbox_bytes=self._outbox_bytes(),
            recovered_changes=self._recovery.recovered,
            last_recovery_at=None if last is None else round(self._clock() - (trio.current_time() - last), 3),
            reads_running=self._reads.running,
            retries=dict(retries),
        )

    def _servers(self) -> list[ServerHealth]:
        layout = self._connected.servers.layout
        owned = Counter(owner.node_id for owner in self._owners() if owner is not None)
        found = []
        for node_id, owner in layout.primaries.items():
            replicas = layout.replicas.get(node_id, ())
            answers = owner.address not in self._silent
            found.append(ServerHealth(str(owner.address), "primary", answers, owned[node_id], len(replicas)))
            found += [ServerHealth(str(address), "replica", address not in self._silent, 0, 0) for address in replicas]
        found += [
            ServerHealth(str(address), "primary" if of == "-" else "replica", False, 0, 0)
            for address, of in layout.dead.items()
        ]
        return found

    def _owners(self) -> list[Owner | None]:
        """Of each partition."""
        return [self._connected.servers.owner_of(slot) for slot in self._connected.keyspace.slots]

    def _partitions_away(self) -> int:
        return sum(owner is None or owner.address in self._silent for owner in self._owners())

    async def _round(self) -> None:
        silent: set[Address] = set()
        # An owner is asked for something that it owns: one that is loading or cut off answers a PING all the same.
        fences = self._connected.keyspace.fences
        asked: dict[Address, Command] = dict.fromkeys(self._connected.servers.layout.addresses(), (b"PING",)) | {
            owner.address: (b"GET", fence)
            for owner, fence in zip(self._owners(), fences, strict=True)
            if owner is not None
        }
        async with trio.open_nursery() as nursery:
            for address, command in asked.items():
                nursery.start_soon(self._ask, address, command, silent)
        self._silent = silent
        if self._partitions_away() < self._connected.keyspace.partitions:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = self._clock()

    async def _ask(self, address: Address, command: Command, silent: set[Address]) -> None:
        try:
            with trio.fail_after(_ASK_SECONDS_MAX):
                (answer,) = await self._connected.servers.link(address, "health").call([command])
        except (LinkDownError, trio.TooSlowError):
            silent.add(address)
            return
        if isinstance(answer, RedisError) and command[0] != b"PING":
            silent.add(address)
