"""Reads: what queries and people ask for, from the owners of the partitions.

Every read asks for the fence of its partition too. If that is beyond what this node knows of the registry, an audience
may have been deleted or named anew meanwhile: the registry is refreshed and the read repeated. So a query sees
everything that any node acknowledged before it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio

from segmentd.cluster.audiences import Audiences
from segmentd.cluster.batches import Job
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import Keyspace
from segmentd.cluster.link import Command
from segmentd.cluster.registry import Registry
from segmentd.domain.members import Member, MembersPage
from segmentd.domain.membership import is_qualified, ts_ms_of
from segmentd.domain.refusals import Overloaded, StoreUnavailable
from segmentd.runtime.seam import AudienceFacts, Found, Wanted

_STALE_ROUNDS_MAX: Final = 20
Build = Callable[[int], list[Command]]
"""partition → the commands for it."""


class Reads:
    """Implements `segmentd.runtime.seam.AwaitedReader`, and what else is read."""

    def __init__(
        self,
        keyspace: Keyspace,
        audiences: Audiences,
        registry: Registry,
        dispatcher: Dispatcher,
        *,
        patience_seconds: float,
        running_max: int,
        retry_after_seconds: int,
    ) -> None:
        """patience_seconds: how long a read tries. running_max: reads at a time."""
        self._keyspace = keyspace
        self._audiences = audiences
        self._registry = registry
        self._dispatcher = dispatcher
        self._patience_seconds = patience_seconds
        self._running_max = running_max
        self._retry_after_seconds = retry_after_seconds
        self.running = 0
        """Reads that are being done now."""
        self.on_read: Callable[[float], None] = _unwatched
        """Told how many seconds a read took, also one that failed."""

    async def fetch(self, wanted: Wanted) -> Found:
        """See AwaitedReader."""
        with self._place():
            return await self._fetch(wanted)

    async def memberships(self, key: bytes) -> dict[str, int]:
        """audience id → `v`. Raises StoreUnavailable, Overloaded."""
        with self._place():
            return await self._memberships(key)

    async def facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        """See MembersReader."""
        with self._place():
            return await self._facts(audiences)

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See MembersReader; the order is that of the partitions, and of the keys within each."""
        with self._place():
            return await self._page(audience, after, first)

    async def listed(self, keys: Sequence[bytes], audience: str) -> list[int | None]:
        """The `v` of each key for an audience. Raises StoreUnavailable."""
        return [versions[0] for versions in await self._versions([(key, (audience,)) for key in keys])]

    async def partition_members(
        self, audience: str, partition: int, after: bytes, first: int, *, inclusive: bool = False
    ) -> list[bytes]:
        """At most `first` members of one partition behind the key `after`, in key order. Raises StoreUnavailable.

        inclusive: `after` itself counts too.
        """
        answers = await self._ask(
            [partition], lambda partition: [self._range(partition, audience, after, first, inclusive=inclusive)]
        )
        return list(answers[partition][0])

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Raises Overloaded where too many reads are running."""
        if self.running >= self._running_max:
            message = f"{self.running} reads are waiting for the cluster ([store] reads_running_max)."
            raise Overloaded(message, self._retry_after_seconds)
        self.running += 1
        started = trio.current_time()
        try:
            yield
        finally:
            self.running -= 1
            self.on_read(trio.current_time() - started)

    async def _fetch(self, wanted: Wanted) -> Found:
        lookups: dict[bytes, Mapping[str, int | None]] = {}
        sizes: dict[str, int] = {}
        if wanted.lookups:
            asked = [(key, tuple(audiences)) for key, audiences in wanted.lookups.items()]
            for (key, audiences), versions in zip(asked, await self._versions(asked), strict=True):
                lookups[key] = dict(zip(audiences, versions, strict=True))
        if wanted.sizes:
            names = sorted(wanted.sizes)
            sizes = dict(zip(names, await self._sizes(names), strict=True))
        pages = {page: await self._page(*page) for page in sorted(wanted.pages)}
        return Found(lookups, sizes, pages)

    async def _versions(self, asked: Sequence[tuple[bytes, tuple[str, ...]]]) -> list[list[int | None]]:
        """(key, audiences) → the `v` of each."""
        by_partition: defaultdict[int, list[int]] = defaultdict(list)
        for position, (key, _) in enumerate(asked):
            by_partition[self._keyspace.partition_of(key)].append(position)

        def build(partition: int) -> list[Command]:
            commands: list[Command] = []
            for position in by_partition[partition]:
                key, audiences = asked[position]
                tokens = map(self._audiences.next_token, audiences)
                commands.append((b"HMGET", self._keyspace.user(key), *tokens))
            return commands

        answers = await self._ask(by_partition, build)
        found: list[list[int | None]] = [[]] * len(asked)
        for partition, positions in by_partition.items():
            for position, values in zip(positions, answers[partition], strict=True):
                found[position] = [None if value is None else int(value) for value in values]
        return found

    async def _sizes(self, audiences: Sequence[str]) -> list[int]:
        def build(partition: int) -> list[Command]:
            return [(b"HMGET", self._keyspace.counts[partition], *map(self._audiences.next_token, audiences))]

        answers = await self._ask(range(self._keyspace.partitions), build)
        return [sum(int(counts[at] or 0) for (counts,) in answers.values()) for at in range(len(audiences))]

    async def _facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        await self._registry.refresh()
        known = [audience for audience in audiences if self._audiences.number(audience) is not None]
        if not known:
            return []

        def build(partition: int) -> list[Command]:
            tokens = [self._audiences.next_token(audience) for audience in known]
            space = self._keyspace
            return [(b"HMGET", space.counts[partition], *tokens), (b"HMGET", space.latest[partition], *tokens)]

        answers = (await self._ask(range(self._keyspace.partitions), build)).values()
        return [
            AudienceFacts(
                audience,
                sum(int(counts[at] or 0) for counts, _ in answers),
                ts_ms_of(max(int(latest[at] or 0) for _, latest in answers)),
                self._audiences.last_import_ms(audience),
            )
            for at, audience in enumerate(known)
        ]

    async def _memberships(self, key: bytes) -> dict[str, int]:
        partition = self._keyspace.partition_of(key)
        answers = await self._ask([partition], lambda _: [(b"HGETALL", self._keyspace.user(key))])
        held = _pairs(answers[partition][0])
        if any(self._audiences.by_token(token) is None for token, _ in held):
            await self._registry.refresh()
        found = ((self._audiences.by_token(token), int(value)) for token, value in held)
        return {self._audiences.id(number): v for number, v in found if number is not None}

    async def _page(self, audience: str, after: bytes, first: int) -> MembersPage:
        space = self._keyspace
        token = self._audiences.next_token
        counted = await self._ask(
            range(space.partitions), lambda partition: [(b"HGET", space.counts[partition], token(audience))]
        )
        sizes = [int(counted[partition][0] or 0) for partition in range(space.partitions)]
        start = space.partition_of(after) if after else 0
        keys = await self._keys_from(audience, start, after, first + 1, sizes)
        shown = keys[:first]
        versions = await self._versions([(key, (audience,)) for key in shown])
        members: list[Member] = [
            (key, v) for key, (v,) in zip(shown, versions, strict=True) if v is not None and is_qualified(v)
        ]
        return MembersPage(members, sum(sizes), len(keys) > first)

    async def _keys_from(
        self, audience: str, start: int, after: bytes, count: int, sizes: Sequence[int]
    ) -> list[bytes]:
        """Up to `count` members from a partition on."""
        found: list[bytes] = []
        partition = start
        while partition < len(sizes) and len(found) < count:
            some, expected = [], 0
            while partition < len(sizes) and expected < count - len(found):
                expected += 0 if partition == start and after else sizes[partition]
                if sizes[partition]:
                    some.append(partition)
                partition += 1

            def build(partition: int) -> list[Command]:
                behind = after if partition == start else b""
                return [self._range(partition, audience, behind, count)]

            answers = await self._ask(some, build)
            for place in some:
                found += answers[place][0]
        return found[:count]

    def _range(self, partition: int, audience: str, after: bytes, count: int, *, inclusive: bool = False) -> Command:
        members = self._keyspace.members(partition, self._audiences.next_token(audience))
        low = (b"[" if inclusive else b"(") + after if after else b"-"
        return (b"ZRANGEBYLEX", members, low, b"+", b"LIMIT", b"0", str(count).encode())

    async def _ask(self, partitions: Iterable[int], build: Build) -> dict[int, list[Any]]:
        """The answers of each partition, none of which knows more than this node. Raises StoreUnavailable."""
        deadline = trio.current_time() + self._patience_seconds
        found: dict[int, list[Any]] = {}
        left = list(partitions)
        for _ in range(_STALE_ROUNDS_MAX):
            known: dict[int, int] = {}
            jobs = [(partition, self._job(partition, build, deadline, known)) for partition in left]
            for _, job in jobs:
                self._dispatcher.submit(job)
            stale = []
            for partition, job in jobs:
                *answers, fence = await job.reply.wait()
                if int(fence or 0) > known[partition]:
                    stale.append(partition)
                else:
                    found[partition] = answers
            if not stale:
                return found
            left = stale
            await self._registry.refresh()
        raise StoreUnavailable("The registry changes faster than it can be read.", self._retry_after_seconds)

    def _job(self, partition: int, build: Build, deadline: float, known: dict[int, int]) -> Job:
        """known: gets the version of the registry that the commands were made with."""
        space = self._keyspace

        def commands() -> list[Command]:
            known[partition] = self._registry.version
            # The fence comes last: what was read before it is no older than it says.
            return [*build(partition), (b"GET", space.fences[partition])]

        return Job(space.slots[partition], commands, deadline)


def _pairs(held: Any) -> list[tuple[bytes, bytes]]:
    """A hash, as RESP2 and RESP3 give it."""
    if isinstance(held, Mapping):
        return list(held.items())
    return list(zip(held[::2], held[1::2], strict=True))


def _unwatched(_seconds: float) -> None:
    """Nobody wants to know."""
