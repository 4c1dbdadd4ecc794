"""Members of an audience: pages, and all of them in key order. Implements `segmentd.runtime.seam.MembersReader`.

Each partition keeps its members sorted; whoever wants all of them gets the partitions' streams merged. There is no
snapshot over a whole cluster: what is read is as of the moment when its piece was read, and never older than the call.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from heapq import heapify, heapreplace
from typing import Final, Protocol

import trio

from segmentd.cluster.audiences import Audiences
from segmentd.cluster.keyspace import Keyspace
from segmentd.cluster.reads import Reads
from segmentd.cluster.registry import Registry
from segmentd.domain.members import Member, MembersPage
from segmentd.domain.membership import is_qualified
from segmentd.runtime.seam import AudienceFacts, Export
from segmentd.storage.exporter import Form

Patient = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]

_PIECE: Final = 500
"""Members of one partition that are read at once."""


class Exports(Protocol):
    """Begins exports; see `segmentd.cluster.exports`."""

    async def begin(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> Export: ...


class _Stream:
    """The members of one partition."""

    def __init__(self, reads: Reads, audience: str, partition: int, prefix: bytes) -> None:
        self._reads = reads
        self._audience = audience
        self._partition = partition
        self._prefix = prefix
        self._after = b""
        self._held: deque[Member] = deque()
        self._is_at_end = False

    async def fill(self) -> None:
        """Read until there is a next one, or the end. Raises StoreUnavailable."""
        while not self._held and not self._is_at_end:
            keys = await self._reads.partition_members(
                self._audience, self._partition, self._after or self._prefix, _PIECE, inclusive=not self._after
            )
            self._is_at_end = len(keys) < _PIECE
            if keys:
                self._after = keys[-1]
            if self._prefix and keys and not keys[-1].startswith(self._prefix):
                self._is_at_end = True
                keys = [key for key in keys if key.startswith(self._prefix)]
            versions = await self._reads.listed(keys, self._audience)
            self._held.extend(
                (key, v) for key, v in zip(keys, versions, strict=True) if v is not None and is_qualified(v)
            )

    def next(self) -> Member | None:
        """The next one, None at the end or where `fill` is needed."""
        return self._held.popleft() if self._held else None


class ClusterMembers:
    """Implements MembersReader."""

    def __init__(
        self,
        keyspace: Keyspace,
        audiences: Audiences,
        registry: Registry,
        reads: Reads,
        *,
        exports_of: Callable[["ClusterMembers"], Exports],
    ) -> None:
        """exports_of: what begins exports of these members."""
        self._keyspace = keyspace
        self._audiences = audiences
        self._registry = registry
        self._reads = reads
        self._exports = exports_of(self)

    async def settled(self) -> None:
        """See MembersReader. What was acknowledged is there for all; only the registry may be behind."""
        await self._registry.refresh()

    async def audience_ids(self) -> list[str]:
        """See MembersReader."""
        await self._registry.refresh()
        return self._audiences.ids()

    async def facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        """See MembersReader."""
        return await self._reads.facts(audiences)

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See MembersReader; the order is that of the partitions, and of the keys within each."""
        return await self._reads.page(audience, after, first)

    async def export(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> Export:
        """See MembersReader; of what is written meanwhile some is in it."""
        return await self._exports.begin(audience, form, gzip=gzip, identifier=identifier)

    async def has_kind(self, audience: str, kind: int) -> bool:
        """Whether it has members whose identifiers are of this kind. Raises StoreUnavailable."""
        prefix = bytes([kind])
        for partition in range(self._keyspace.partitions):
            found = await self._reads.partition_members(audience, partition, prefix, 1, inclusive=True)
            if found and found[0].startswith(prefix):
                return True
        return False

    async def all(
        self,
        audience: str,
        *,
        kind: int | None = None,
        patient: Patient,
    ) -> AsyncIterator[Member]:
        """Every member, in key order. kind: only identifiers of this kind. patient: tries to read a piece."""
        prefix = b"" if kind is None else bytes([kind])
        streams = [_Stream(self._reads, audience, number, prefix) for number in range(self._keyspace.partitions)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(patient, stream.fill)
        heap = [(member, number) for number, stream in enumerate(streams) if (member := stream.next()) is not None]
        heapify(heap)
        while heap:
            member, number = heap[0]
            yield member
            following = streams[number].next()
            if following is None:
                await patient(streams[number].fill)
                following = streams[number].next()
            if following is not None:
                heapreplace(heap, (following, number))
            else:
                heap[0] = heap[-1]
                heap.pop()
                heapify(heap)
