"""A cluster as one side of a migration, and the data folder of a node of it, whose lock is held.

Memberships are written as those of lists are, and read server by server. What nodes keep in memory is the registry's,
so nodes are started when the migration has ended; one that runs meanwhile would not know of a salt that was taken over.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack
import msgspec
import trio

from segmentd.cluster.audiences import (
    AUDIENCE,
    FLOOR,
    FORGOTTEN,
    Audiences,
    audience_entry,
    deletion_entry,
    floor_entry,
    forgotten_entry,
    swept_entry,
)
from segmentd.cluster.batches import job_of
from segmentd.cluster.catalog import SEGMENT, segment_entry
from segmentd.cluster.connected import Connected
from segmentd.cluster.jobs import IMPORT, REQUEST
from segmentd.cluster.keys import KEY, key_entry, stored_keys
from segmentd.cluster.keyspace import token_of
from segmentd.cluster.link import Command
from segmentd.cluster.registry import Entry
from segmentd.cluster.scanning import user_keys
from segmentd.cluster.writes import Merging
from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import TS_MS_MAX, V_BITS, ts_ms_of, v_of
from segmentd.domain.shard import Word
from segmentd.migration.contents import PIECE_IDENTIFIERS, Audience, Contents, Counts, Held, MigrationError, Row
from segmentd.migration.histories import Histories, unfinished
from segmentd.settings import Settings
from segmentd.storage.records import segment_from_fields

_MIGRATION: Final = b"migration"
"""An entry of the registry: its rank is odd while a migration into the cluster is under way."""
_LATEST_AT_ONCE: Final = 500


class ClusterSide:
    """Implements `segmentd.migration.contents.Side`, after the cluster was found."""

    def __init__(self, settings: Settings, connected: Connected) -> None:
        self.place = f"the cluster at {', '.join(settings.store.addresses)}"
        self._connected = connected
        self._registry = connected.registry
        self._space = connected.keyspace
        self._patience_seconds = settings.store.acknowledge_seconds_max
        self._histories = Histories(Path(settings.storage.path))
        self._read_audiences()

    async def contents(self) -> Contents:
        """See Side."""
        await self._registry.refresh()
        segments = [_segment(entry) for entry in self._registry.entries(SEGMENT)]
        jobs = [msgspec.json.decode(_of_node(entry), type=ImportJob) for entry in self._registry.entries(IMPORT)]
        requests = [msgspec.json.decode(_of_node(entry), type=ForgetJob) for entry in self._registry.entries(REQUEST)]
        # What this node has is told to all when it is served.
        jobs = list({job.id: job for job in [*jobs, *self._histories.jobs()]}.values())
        requests = list({request.id: request for request in [*requests, *self._histories.requests()]}.values())
        unswept = [found.audience_id for found in self._audiences.deletions.values() if found.in_index]
        return Contents(
            kinds=await self._connected.known_kinds(),
            salt=self._connected.salt,
            audiences=await self._all_audiences(),
            forgotten={entry.field[len(FORGOTTEN) :]: entry.rank for entry in self._registry.entries(FORGOTTEN)},
            segments={record.segment_id: record for record in segments},
            keys=stored_keys(self._registry),
            jobs=[job for job in jobs if job.is_ended],
            requests=[request for request in requests if request.state == "completed"],
            unfinished=[
                *unfinished(jobs, requests),
                *(f"the deleted audience {audience_id} is not swept up yet" for audience_id in unswept),
            ],
        )

    async def counts(self) -> Counts:
        """See Side; as the partitions count (`segmentd check` counts again)."""
        totals: defaultdict[bytes, int] = defaultdict(int)
        for held in await self._partitions(self._space.counts):
            for token, count in held.items():
                totals[token] += count
        identifiers, memberships = totals.pop(b"n", 0), totals.pop(b"m", 0)
        sizes = {self._id_of(token) or token.hex(): count for token, count in totals.items() if count}
        return Counts(identifiers, memberships, sizes)

    async def rows(self) -> AsyncGenerator[Sequence[Row], None]:
        """See Side."""
        async for keys in user_keys(self._connected):
            for at in range(0, len(keys), PIECE_IDENTIFIERS):
                some = keys[at : at + PIECE_IDENTIFIERS]
                held = zip(some, await self.held(some), strict=True)
                yield [(key, decisions) for key, decisions in held if decisions]

    async def held(self, keys: Sequence[bytes]) -> list[Held]:
        """See Side."""
        by_partition: defaultdict[int, list[int]] = defaultdict(list)
        for position, key in enumerate(keys):
            by_partition[self._space.partition_of(key)].append(position)
        wanted: list[tuple[int, list[Command]]] = [
            (self._space.slots[partition], [(b"HGETALL", self._space.user(keys[at])) for at in positions])
            for partition, positions in by_partition.items()
        ]
        found: list[Held] = [{}] * len(keys)
        for positions, answers in zip(by_partition.values(), await self._ask(wanted), strict=True):
            for position, answer in zip(positions, answers, strict=True):
                decisions = ((self._id_of(token), v) for token, v in _numbers(answer).items())
                found[position] = {audience: v for audience, v in decisions if audience is not None}
        return found

    async def begin(self, contents: Contents, *, merge: bool) -> list[int]:
        """See Side."""
        await self._registry.refresh()
        under_way = self._registry.rank(_MIGRATION)
        if under_way % 2 == 0 or under_way < 0:
            holds = next((prefix for prefix in (AUDIENCE, SEGMENT, FORGOTTEN) if self._registry.entries(prefix)), None)
            if not merge and (holds or (await self.counts()).identifiers):
                raise MigrationError(f"{self.place} holds something already; choose another one, or say --merge")
            await self._registry.register([Entry(_MIGRATION, max(1, under_way + 1), b"")])
        await self._take_salt(contents)
        known = await self._connected.kind_numbers(contents.kinds)
        newcomers = (name for name, audience in contents.audiences.items() if audience.is_living)
        await self._registry.register(
            [
                entry
                for audience_id in newcomers
                for entry in self._living(audience_id, contents.audiences[audience_id].floor)
                if self._audiences.number(audience_id) is None
            ]
        )
        return [known[name] for name in contents.kinds]

    async def merge(self, rows: Sequence[Row]) -> None:
        """See Side."""
        by_partition: defaultdict[int, list[Word]] = defaultdict(list)
        for key, held in rows:
            words = by_partition[self._space.partition_of(key)]
            for audience, v in held.items():
                number = self._audiences.number(audience)
                if number is None:
                    raise MigrationError(f"the audience {audience} came into being meanwhile; stop all nodes")
                words.append((key, number << V_BITS | v))
        deadline = self._deadline()
        jobs = [
            # As of a list that was taken at the end of all times: what it says does not count as news of events.
            self._merging.job(partition, words, TS_MS_MAX, deadline, len(words))
            for partition, words in by_partition.items()
        ]
        for job in jobs:
            self._connected.writes.submit(job)
        for job in jobs:
            await job.reply.wait()

    async def finish(self, contents: Contents) -> None:
        """See Side."""
        entries = [forgotten_entry(mark, forgotten_ms) for mark, forgotten_ms in contents.forgotten.items()]
        for audience_id, audience in contents.audiences.items():
            if audience.is_living and audience.import_floor:
                entries.append(floor_entry(self._audiences.next_token(audience_id), audience.import_floor))
            elif not audience.is_living and self._registry.get(AUDIENCE + audience_id.encode()) is None:
                entries.append(deletion_entry(audience_id, 0, audience.floor, audience.deleted_ms))
                entries.append(swept_entry(token_of(audience_id, 0)))
        entries += [segment_entry(record) for record in contents.segments.values()]
        held = stored_keys(self._registry)
        for key_id, key in contents.keys.items():
            if key_id not in held:
                entries.append(key_entry(key_id, key, self._registry.rank(KEY + key_id.encode()) + 1))
        await self._registry.register(entries)
        await self._registry.fence(self._space)
        await self._put_latest(contents)
        self._histories.add(contents.jobs, contents.requests)

    async def done(self) -> None:
        """The migration has ended, and was found to be right."""
        await self._registry.register([Entry(_MIGRATION, self._registry.rank(_MIGRATION) + 1, b"")])

    async def _take_salt(self, contents: Contents) -> None:
        """Marks say nothing without the salt that they were made with."""
        if not contents.forgotten or self._connected.salt == contents.salt:
            return
        if self._registry.entries(FORGOTTEN):
            raise MigrationError(f"{self.place} has forgotten identifiers of its own, which cannot be told from others")
        await self._connected.take_salt(contents.salt)
        self._read_audiences()

    def _living(self, audience_id: str, floor: int) -> list[Entry]:
        """One that was deleted before, wherever that was, does not begin its first life here."""
        times_here = self._audiences.deleted_times(audience_id)
        times = max(times_here, int(floor > 0))
        entries = [audience_entry(audience_id, times, max(floor, self._audiences.floor(audience_id)))]
        if times > times_here:
            # Its first life was elsewhere: there is nothing of it to sweep up.
            entries.append(swept_entry(token_of(audience_id, times_here)))
        return entries

    def _read_audiences(self) -> None:
        self._audiences = Audiences(self._registry, self._connected.salt, audiences_max=0)
        self._merging = Merging(self._space, self._audiences, self._registry)

    async def _all_audiences(self) -> dict[str, Audience]:
        latest: defaultdict[bytes, int] = defaultdict(int)
        for held in await self._partitions(self._space.latest):
            for token, v in held.items():
                latest[token] = max(v, latest[token])
        found: dict[str, Audience] = {}
        for entry in self._registry.entries(AUDIENCE):
            audience_id = entry.field[len(AUDIENCE) :].decode()
            deletions, is_deleted = divmod(entry.rank, 2)
            floor, deleted_ms = msgpack.unpackb(entry.payload)
            if is_deleted:
                found[audience_id] = Audience(False, floor, deleted_ms, 0, 0)
            else:
                token = token_of(audience_id, deletions)
                raised = self._registry.rank(FLOOR + token)
                found[audience_id] = Audience(True, floor, 0, raised if raised > floor else 0, ts_ms_of(latest[token]))
        return found

    async def _put_latest(self, contents: Contents) -> None:
        pairs = [
            (self._audiences.next_token(audience_id), str(v_of(audience.last_event_ms, True)).encode())
            for audience_id, audience in contents.audiences.items()
            if audience.is_living and audience.last_event_ms
        ]
        for at in range(0, len(pairs), _LATEST_AT_ONCE):
            flat = [part for pair in pairs[at : at + _LATEST_AT_ONCE] for part in pair]
            # Whoever asks takes the largest of all partitions, so one of them is enough.
            command = (b"FCALL", b"segmentd_latest", b"1", self._space.latest[0], *flat)
            await self._connected.writes.call(self._space.slots[0], [command], self._deadline())

    def _id_of(self, token: bytes) -> str | None:
        number = self._audiences.by_token(token)
        return None if number is None else self._audiences.id(number)

    async def _partitions(self, keys: Iterable[bytes]) -> list[dict[bytes, int]]:
        """A hash of each partition."""
        wanted = zip(self._space.slots, keys, strict=True)
        answers = await self._ask([(slot, [(b"HGETALL", key)]) for slot, key in wanted])
        return [_numbers(held) for (held,) in answers]

    async def _ask(self, wanted: Sequence[tuple[int, list[Command]]]) -> list[list[Any]]:
        deadline = self._deadline()
        jobs = [job_of(slot, commands, deadline) for slot, commands in wanted]
        for job in jobs:
            self._connected.reads.submit(job)
        return [await job.reply.wait() for job in jobs]

    def _deadline(self) -> float:
        return trio.current_time() + self._patience_seconds


def _numbers(held: Any) -> dict[bytes, int]:
    """A hash, as RESP2 and RESP3 give it."""
    pairs = held.items() if isinstance(held, dict) else zip(held[::2], held[1::2], strict=True)
    return {bytes(name): int(value) for name, value in pairs}


def _segment(entry: Entry) -> Any:
    return segment_from_fields(msgpack.unpackb(entry.payload, use_list=False))


def _of_node(entry: Entry) -> bytes:
    _node, encoded = msgpack.unpackb(entry.payload)
    return bytes(encoded)
