"""The registry: what all nodes have to agree on, small and read often.

Segments, keys, audiences, floors, forgotten identifiers, deletions, import jobs: each is an *entry*, a field with a
rank and a payload, of which the larger rank stays. So entries are merged as memberships are, and any node may write
again what a failover has lost. They lie in one slot of the cluster; every node has a copy in memory and asks for what
is new several times a second.

Invariants: (1) each change of the registry raises its version; (2) what must be known before anything else is written
(floors, forgotten identifiers, deletions) is followed by a *fence*: every partition is told the version, and refuses
writers that know less; (3) a version is never given out twice, not even when a new owner has lost the last ones: a
server that finds out that the registry was another one's raises it by a wide margin before it writes anything there,
and every node that notices merges its own copy in.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import structlog
import trio

from segmentd.cluster.batches import Job, job_of
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import REGISTRY_KEYS, REGISTRY_SLOT, Keyspace
from segmentd.cluster.link import Command
from segmentd.cluster.servers import Servers
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_CHUNK: Final = 500
_RETRY_AFTER_SECONDS: Final = 1
"""Entries that are written or read at once; so many at most have one version."""
_PAGE: Final = 5_000
"""Fields that are listed at once, more than have one version."""
_META, _ENTRIES, _VERSIONS = REGISTRY_KEYS
_KEY_COUNT: Final = b"3"
NONE: Final = -1
"""The rank of an entry that does not exist."""


class Entry(NamedTuple):
    """One entry. expected: the rank that it must have now (NONE: must not exist), None for any."""

    field: bytes
    rank: int
    payload: bytes
    expected: int | None = None


class ConflictError(Exception):
    """An entry has another rank than was expected; nothing was written, and the copy is up to date again."""


class Registry:
    """Plain reads of the copy on the loop's thread; `run` as a task keeps it fresh."""

    def __init__(
        self,
        servers: Servers,
        reads: Dispatcher,
        writes: Dispatcher,
        record: Callable[[Sequence[Entry]], Awaitable[None]],
        *,
        poll_seconds: float,
        patience_seconds: float,
    ) -> None:
        """writes: durable. record: puts entries into the outbox before they are sent. patience_seconds: of a call."""
        self._servers = servers
        self._reads = reads
        self._writes = writes
        self._record = record
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._entries: dict[bytes, tuple[int, bytes]] = {}
        self._owner: str | None = None
        self._turn = trio.Lock()
        self._looks_begun = 0
        self._looked = 0
        """Number of the latest look that has ended."""
        self._refusal: StoreUnavailable | None = None
        """Why that look failed; None if it did not."""
        self._fencing = trio.Lock()
        self.version = 0
        """All that was registered up to here is in the copy."""
        self.fenced = 0
        """Every partition has been told this version or a later one, by this node."""
        self.on_entry: list[Callable[[Entry], None]] = []
        """Called with each entry that is new in the copy; plain code."""
        self.failing_since: float | None = None
        """Since when (Trio's clock) it cannot be read; None if it can."""
        self.failures = 0
        """Times when it could not be read."""
        self.read_at = -inf
        """When the copy was made sure of last (Trio's clock)."""

    def get(self, field: bytes) -> tuple[int, bytes] | None:
        """(rank, payload) of an entry of the copy."""
        return self._entries.get(field)

    def rank(self, field: bytes) -> int:
        """Its rank in the copy, NONE if it is not there."""
        held = self._entries.get(field)
        return NONE if held is None else held[0]

    def entries(self, prefix: bytes) -> Iterable[Entry]:
        """All entries of the copy whose field begins so."""
        return [
            Entry(field, rank, payload) for field, (rank, payload) in self._entries.items() if field.startswith(prefix)
        ]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._poll_seconds)
            try:
                await self.refresh()
                self.failing_since = None
            except StoreUnavailable as refusal:
                self.failures += 1
                if self.failing_since is None:
                    self.failing_since = trio.current_time()
                    log.warning("the registry cannot be read", reason=refusal.message)

    async def refresh(self) -> None:
        """Have everything in the copy that was registered before this call. Raises StoreUnavailable.

        What somebody else has asked for after this call serves all who wait, also if it failed: where each tried for
        itself, they would wait for the cluster one after the other.
        """
        begun = self._looks_begun
        async with self._turn:
            if self._looked <= begun:
                self._looks_begun += 1
                try:
                    await self._look()
                except StoreUnavailable as refusal:
                    self._refusal = refusal
                else:
                    self._refusal = None
                self._looked = self._looks_begun
            if self._refusal is not None:
                raise StoreUnavailable(self._refusal.message, self._refusal.retry_after_seconds)

    async def _look(self) -> None:
        started = trio.current_time()
        await self._inherit()
        commands = [(b"HGET", _META, b"version"), (b"HLEN", _ENTRIES)]
        version, count = await self._reads.call(REGISTRY_SLOT, commands, self._deadline())
        if int(version or 0) != self.version:
            await self._fetch(int(version or 0))
        elif count < len(self._entries):
            await self._prune()
        self.read_at = started

    async def register(self, entries: Sequence[Entry]) -> int:
        """Merge entries in, durably, all or none; they are in the copy when it returns. Returns the version.

        Raises ConflictError, StoreUnavailable (outcome unknown).
        """
        version = NONE
        for at in range(0, len(entries), _CHUNK):
            version = await self._register(entries[at : at + _CHUNK])
        await self.refresh()
        return version

    async def unregister(self, fields: Sequence[bytes]) -> None:
        """Drop entries that nobody needs any more; other nodes may keep copies. Raises StoreUnavailable."""
        if fields:
            await self._writes.call(REGISTRY_SLOT, [_call(b"segmentd_unregister", *fields)], self._deadline())
            for field in fields:
                self._entries.pop(field, None)

    async def fence(self, keyspace: Keyspace) -> None:
        """From now on no partition takes anything from nodes that know less than this one. Raises StoreUnavailable."""
        with trio.move_on_at(self._deadline()) as waiting:
            await self._fencing.acquire()
        if waiting.cancelled_caught:
            raise StoreUnavailable("Others wait for all partitions of the cluster.", _RETRY_AFTER_SECONDS)
        try:
            version = self.version
            if self.fenced >= version:
                return
            jobs = [
                fence_job(keyspace, partition, version, self._deadline()) for partition in range(keyspace.partitions)
            ]
            for job in jobs:
                self._writes.submit(job)
            for job in jobs:
                await job.reply.wait()
            self.fenced = version
        finally:
            self._fencing.release()

    async def _register(self, entries: Sequence[Entry]) -> int:
        arguments: list[bytes] = []
        for entry in entries:
            expected = b"" if entry.expected is None else str(entry.expected).encode()
            arguments += (entry.field, expected, str(entry.rank).encode(), entry.payload)
        if self._has_new_owner():
            await self.refresh()
        conditional = any(entry.expected is not None for entry in entries)
        if not conditional:
            await self._record(entries)
        (answer,) = await self._writes.call(REGISTRY_SLOT, [_call(b"segmentd_register", *arguments)], self._deadline())
        if answer[0] == NONE:
            await self.refresh()
            raise ConflictError(bytes(answer[1]).decode(errors="replace"))
        if conditional:
            # Only now: what may be refused must not be sent again from the outbox.
            await self._record(entries)
        return int(answer[0])

    async def _fetch(self, version: int) -> None:
        low = b"-inf" if version < self.version else b"(" + str(self.version).encode()
        while True:
            page = (b"ZRANGEBYSCORE", _VERSIONS, low, b"+inf", b"WITHSCORES", b"LIMIT", b"0", str(_PAGE).encode())
            (answer,) = await self._reads.call(REGISTRY_SLOT, [page], self._deadline())
            pairs = _pairs(answer)
            fields = [field for field, _ in pairs]
            for at in range(0, len(fields), _CHUNK):
                await self._fetch_entries(fields[at : at + _CHUNK])
            if len(pairs) < _PAGE:
                break
            # The last version may go on behind the page.
            low = b"%d" % int(float(pairs[-1][1]))
        self.version = version

    async def _fetch_entries(self, fields: Sequence[bytes]) -> None:
        (held,) = await self._reads.call(REGISTRY_SLOT, [(b"HMGET", _ENTRIES, *fields)], self._deadline())
        for field, text in zip(fields, held, strict=True):
            if text is not None:
                rank, _, payload = text.partition(b":")
                self._take(Entry(field, int(rank), payload))

    async def _prune(self) -> None:
        """Drop from the copy what others have unregistered."""
        (fields,) = await self._reads.call(REGISTRY_SLOT, [(b"HKEYS", _ENTRIES)], self._deadline())
        owner = self._servers.owner_of(REGISTRY_SLOT)
        if owner is None or owner.node_id != self._owner:
            return  # A new owner lacks what it has lost, and is to get it from here.
        for field in self._entries.keys() - set(fields):
            del self._entries[field]

    def _take(self, entry: Entry) -> None:
        if entry.rank > self.rank(entry.field):
            self._entries[entry.field] = (entry.rank, entry.payload)
            for told in self.on_entry:
                told(entry)

    async def _inherit(self) -> None:
        """Where the registry has a new owner: no version twice, and what it lacks of the copy is merged in."""
        owner = self._servers.owner_of(REGISTRY_SLOT)
        if owner is None or not self._has_new_owner():
            return
        known = str(self.version).encode()
        await self._writes.call(REGISTRY_SLOT, [_call(b"segmentd_inherit", known)], self._deadline())
        if self._owner is not None:
            log.info("the registry has a new owner", server=str(owner.address), entries=len(self._entries))
            fields = list(self._entries)
            for at in range(0, len(fields), _CHUNK):
                arguments: list[bytes] = []
                for field in fields[at : at + _CHUNK]:
                    rank, payload = self._entries[field]
                    arguments += (field, b"", str(rank).encode(), payload)
                await self._writes.call(REGISTRY_SLOT, [_call(b"segmentd_register", *arguments)], self._deadline())
            # What others have written there meanwhile may have versions that seem to be known.
            self.version = 0
        self._owner = owner.node_id

    def _has_new_owner(self) -> bool:
        owner = self._servers.owner_of(REGISTRY_SLOT)
        return owner is not None and owner.node_id != self._owner

    def _deadline(self) -> float:
        return trio.current_time() + self._patience_seconds


def _call(name: bytes, *arguments: bytes) -> Command:
    return (b"FCALL", name, _KEY_COUNT, *REGISTRY_KEYS, *arguments)


def fence_job(keyspace: Keyspace, partition: int, version: int, deadline: float) -> Job:
    """Tells one partition which version of the registry its writers must know."""
    command = (b"FCALL", b"segmentd_fence", b"1", keyspace.fences[partition], str(version).encode())
    return job_of(keyspace.slots[partition], [command], deadline, weight=0)


def _pairs(held: Any) -> list[tuple[bytes, bytes]]:
    """A range with its scores, as RESP2 and RESP3 give it."""
    if held and isinstance(held[0], list | tuple):
        return [(pair[0], pair[1]) for pair in held]
    return list(zip(held[::2], held[1::2], strict=True))
