"""Verifying a cluster: does everything that is written twice agree?

Every partition is counted again: its users and memberships against its counts, and each audience's members against the
memberships, in both directions. The registry's entries are read as nodes read them. Changes nothing.

A partition that is written to meanwhile, or a server that tells of a key twice, may look wrong for once: what differs
is looked at again, and only what differs every time is told.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgpack
import msgspec
import trio

from segmentd.cluster.audiences import AUDIENCE, FLOOR, FORGOTTEN, SWEPT, Audiences
from segmentd.cluster.batches import job_of
from segmentd.cluster.catalog import SEGMENT
from segmentd.cluster.connected import Connected
from segmentd.cluster.jobs import IMPORT, REQUEST
from segmentd.cluster.keys import stored_keys
from segmentd.cluster.keyspace import REGISTRY_KEYS, REGISTRY_SLOT, TOKEN_BYTES
from segmentd.cluster.link import Command
from segmentd.cluster.registry import Entry
from segmentd.cluster.scanning import user_keys
from segmentd.domain.gate import MARK_BYTES
from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import TS_MS_MAX, is_qualified
from segmentd.storage.records import segment_from_fields

DIFFERENCES_LISTED_MAX: Final = 20
_LOOKS_MAX: Final = 3
_PIECE: Final = 1_000
_V_MAX: Final = 2 * TS_MS_MAX + 1


class ClusterReport(msgspec.Struct):
    """What was found. `differences` holds the first ones, `differences_total` counts all."""

    partitions: int = 0
    identifiers: int = 0
    memberships: int = 0
    members: int = 0
    audiences: int = 0
    segments: int = 0
    differences: list[str] = []
    differences_total: int = 0

    def differ(self, texts: Sequence[str]) -> None:
        """Note some."""
        self.differences_total += len(texts)
        self.differences += texts[: DIFFERENCES_LISTED_MAX - len(self.differences)]


class _Partition(msgspec.Struct):
    """One partition, counted."""

    users: int = 0
    memberships: int = 0
    members: defaultdict[bytes, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """token → how many are qualified."""
    problems: list[str] = []


async def check(connected: Connected) -> ClusterReport:
    """Verify everything. Raises StoreUnavailable."""
    checking = _Checking(connected)
    await connected.registry.refresh()
    report = ClusterReport(partitions=connected.keyspace.partitions)
    report.differ(await checking.registry_problems())
    report.audiences = len(checking.audiences)
    report.segments = checking.segments
    left = set(range(report.partitions))
    for look in range(1, _LOOKS_MAX + 1):
        counted = await checking.counted(left)
        problems = {partition: await checking.problems(partition, counted[partition]) for partition in left}
        for partition in sorted(left):
            if problems[partition] and look < _LOOKS_MAX:
                continue
            left.discard(partition)
            report.differ(problems[partition])
            report.identifiers += counted[partition].users
            report.memberships += counted[partition].memberships
            report.members += sum(counted[partition].members.values())
    return report


class _Checking:
    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._space = connected.keyspace
        self._registry = connected.registry
        self.audiences = Audiences(connected.registry, connected.salt, audiences_max=0)
        self.segments = 0

    async def registry_problems(self) -> list[str]:
        """Entries that no node could read, and versions that do not fit."""
        meta, entries, versions = REGISTRY_KEYS
        commands: list[Command] = [
            (b"HGET", meta, b"version"),
            (b"HLEN", entries),
            (b"ZCARD", versions),
            (b"ZREVRANGE", versions, b"0", b"0", b"WITHSCORES"),
        ]
        version, fields, versioned, last = await self._call(REGISTRY_SLOT, commands)
        problems = []
        if fields != versioned:
            problems.append(f"registry: {fields} entries, and {versioned} of them have a version")
        if last and _score(last) > int(version or 0):
            problems.append(f"registry: an entry has the version {_score(last)}, the registry {int(version or 0)}")
        for entry in self._registry.entries(b""):
            try:
                self._read(entry)
            except (ValueError, TypeError, LookupError, msgspec.DecodeError, msgpack.UnpackException) as error:
                problems.append(f"registry: the entry {entry.field!r} cannot be read: {error}")
        try:
            stored_keys(self._registry)
        except msgspec.DecodeError as error:
            problems.append(f"registry: a key cannot be read: {error}")
        return problems

    async def counted(self, partitions: set[int]) -> dict[int, _Partition]:
        """Count what users hold, and look whether members say the same of them."""
        found = {partition: _Partition() for partition in partitions}
        async for keys in user_keys(self._connected):
            by_partition: defaultdict[int, list[bytes]] = defaultdict(list)
            for key in keys:
                if (partition := self._space.partition_of(key)) in found:
                    by_partition[partition].append(key)
            async with trio.open_nursery() as nursery:
                for partition, some in by_partition.items():
                    nursery.start_soon(self._count, partition, some, found[partition])
        return found

    async def problems(self, partition: int, found: _Partition) -> list[str]:
        """What does not agree in one partition."""
        space, slot = self._space, self._space.slots[partition]
        commands: list[Command] = [(b"HGETALL", space.counts[partition]), (b"GET", space.fences[partition])]
        held, fence = await self._call(slot, commands)
        counts = _numbers(held)
        problems = list(found.problems)
        for name, what, number in ((b"n", "users", found.users), (b"m", "memberships", found.memberships)):
            if counts.pop(name, 0) != number:
                problems.append(f"partition {partition}: a recount of {what} gives {number}, and not what is stored")
        if int(fence or 0) > self._registry.version:
            problems.append(f"partition {partition}: its fence {int(fence)} is beyond the registry's version")
        tokens = sorted(counts.keys() | found.members.keys())
        for at in range(0, len(tokens), _PIECE):
            some = tokens[at : at + _PIECE]
            listed = await self._call(slot, [(b"ZCARD", space.members(partition, token)) for token in some])
            for token, members in zip(some, listed, strict=True):
                problems += await self._token_problems(
                    partition, token, counts.get(token, 0), found.members.get(token, 0), members
                )
        return problems

    async def _token_problems(
        self, partition: int, token: bytes, stored: int, qualified: int, listed: int
    ) -> list[str]:
        place = f"partition {partition}, {self._shown(token)}"
        problems = []
        if stored != qualified:
            problems.append(f"{place}: is stored with size {stored}, and a recount gives {qualified}")
        if listed != qualified:
            problems.append(f"{place}: {listed} members are listed, {qualified} are qualified")
            problems += await self._orphans(partition, token, place)
        number = self.audiences.by_token(token)
        if number is None and (stored or qualified or listed) and not self._is_swept_up_yet(token):
            problems.append(f"{place}: has members and no entry in the registry")
        return problems

    async def _orphans(self, partition: int, token: bytes, place: str) -> list[str]:
        """Name members that no membership stands behind."""
        slot, after, problems = self._space.slots[partition], b"-", list[str]()
        members = self._space.members(partition, token)
        while len(problems) < DIFFERENCES_LISTED_MAX:
            keys: list[bytes]
            (keys,) = await self._call(
                slot, [(b"ZRANGEBYLEX", members, after, b"+", b"LIMIT", b"0", str(_PIECE).encode())]
            )
            if not keys:
                break
            # Whatever is listed here is looked for here, even if it belongs elsewhere.
            prefix = self._space.user_prefixes[partition]
            held = await self._call(slot, [(b"HGET", prefix + key, token) for key in keys])
            problems += [
                f"{place}: {_named(key)} is listed and not qualified"
                for key, v in zip(keys, held, strict=True)
                if v is None or not is_qualified(int(v))
            ]
            after = b"(" + keys[-1]
        return problems

    async def _count(self, partition: int, keys: list[bytes], found: _Partition) -> None:
        space, slot = self._space, self._space.slots[partition]
        answers = await self._call(slot, [(b"HGETALL", space.user(key)) for key in keys])
        by_token: defaultdict[bytes, list[tuple[bytes, int]]] = defaultdict(list)
        for key, answer in zip(keys, answers, strict=True):
            held = _numbers(answer)
            # One that was forgotten between the two looks is not there.
            found.users += bool(held)
            found.memberships += len(held)
            for token, v in held.items():
                by_token[token].append((key, v))
                found.members[token] += is_qualified(v)
                if not 0 <= v <= _V_MAX:
                    found.problems.append(f"partition {partition}: {_named(key)} has {v}, which is no decision")
        commands: list[Command] = [
            (b"ZMSCORE", space.members(partition, token), *(key for key, _ in decisions))
            for token, decisions in by_token.items()
        ]
        for (token, decisions), scores in zip(by_token.items(), await self._call(slot, commands), strict=True):
            for (key, v), score in zip(decisions, scores, strict=True):
                if (score is not None) != is_qualified(v):
                    said = "is qualified and not listed" if score is None else "is listed and not qualified"
                    found.problems.append(f"partition {partition}, {self._shown(token)}: {_named(key)} {said}")

    def _read(self, entry: Entry) -> None:
        """As a node does. Raises what goes wrong."""
        kind, name = entry.field[:2], entry.field[2:]
        if kind == AUDIENCE:
            floor, deleted_ms = msgpack.unpackb(entry.payload)
            if not 0 <= floor <= _V_MAX or not 0 <= deleted_ms <= TS_MS_MAX:
                raise ValueError(f"{floor} and {deleted_ms} are no floor and time")
        elif kind == SEGMENT:
            record = segment_from_fields(msgpack.unpackb(entry.payload, use_list=False))
            self.segments += record.definition is not None
        elif kind in {FLOOR, SWEPT}:
            if len(name) != TOKEN_BYTES:
                raise ValueError("this is no token")
        elif kind == FORGOTTEN:
            if len(name) != MARK_BYTES or not 0 < entry.rank <= TS_MS_MAX:
                raise ValueError("this is no mark and time")
        elif kind in {IMPORT, REQUEST}:
            _, job = msgpack.unpackb(entry.payload)
            if kind == IMPORT:
                msgspec.json.decode(job, type=ImportJob)

    def _is_swept_up_yet(self, token: bytes) -> bool:
        """Whether this is what a deleted audience has left, which is being swept up."""
        return any(
            deletion.in_index and self.audiences.token(number) == token
            for number, deletion in self.audiences.deletions.items()
        )

    def _shown(self, token: bytes) -> str:
        number = self.audiences.by_token(token)
        return f"token {token.hex()}" if number is None else f"audience {self.audiences.id(number)}"

    async def _call(self, slot: int, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        job = job_of(slot, commands, trio.current_time() + self._connected.patience_seconds)
        self._connected.reads.submit(job)
        return await job.reply.wait()


def _numbers(held: Any) -> dict[bytes, int]:
    """A hash, as RESP2 and RESP3 give it."""
    pairs = held.items() if isinstance(held, dict) else zip(held[::2], held[1::2], strict=True)
    return {bytes(name): int(value) for name, value in pairs}


def _score(last: Any) -> int:
    """Of one member with its score, as RESP2 (flat) and RESP3 (in a pair) give it."""
    pair = last[0] if isinstance(last[0], list | tuple) else last
    return int(float(pair[1]))


def _named(key: bytes) -> str:
    return f"#{key[0]}:{key[1:].decode(errors='replace')!r}"
