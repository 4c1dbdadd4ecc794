"""What is deleted or forgotten goes: one identifier at a time, or all that deleted audiences have left.

Nothing here decides that something is gone: that was registered and fenced before, so nobody shows it or brings it
back. Every step may be repeated, and several nodes may do the same at once.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
import trio

from segmentd.cluster.audiences import Audiences, swept_entry
from segmentd.cluster.batches import Job, job_of
from segmentd.cluster.connected import Connected
from segmentd.cluster.layout import Owner
from segmentd.cluster.link import Answers, Command, LinkDownError
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SCAN_COUNT: Final = b"500"
_RETRY_SECONDS: Final = 1.0
_BETWEEN_SECONDS: Final = 0.005
"""Between two steps of a sweep, so that it takes a share of a server and no more."""
_KEYS_AT_ONCE: Final = 200
_TOKENS_AT_ONCE: Final = 1_000
"""Audiences that are swept up at once. Lua unpacks some 8,000 values at most."""
_FORGET_TRIES_MAX: Final = 100


class Removal:
    """An actor: `run` as a task, `forget` from anywhere."""

    def __init__(self, connected: Connected, audiences: Audiences, *, patience_seconds: float) -> None:
        """patience_seconds: how long one step is tried."""
        self._connected = connected
        self._space = connected.keyspace
        self._audiences = audiences
        self._patience_seconds = patience_seconds
        self._wake = trio.Event()

    def wake(self) -> None:
        """An audience was deleted."""
        self._wake.set()

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Remove identifiers, durably. Raises StoreUnavailable."""
        for at in range(0, len(keys), _KEYS_AT_ONCE):
            left = list(keys[at : at + _KEYS_AT_ONCE])
            for _ in range(_FORGET_TRIES_MAX):
                # Again for those that got another membership between the look and the removal.
                left = await self._forget_some(left)
                if not left:
                    break
            else:
                raise StoreUnavailable("An identifier that is forgotten is written to all the time.", 1)

    async def run(self) -> None:
        """Sweep, until cancelled."""
        while True:
            self._wake = trio.Event()
            unswept = [number for number, deletion in self._audiences.deletions.items() if deletion.in_index]
            if not unswept:
                with trio.move_on_after(_RETRY_SECONDS):
                    await self._wake.wait()
                continue
            try:
                await self._sweep([self._audiences.token(number) for number in unswept[:_TOKENS_AT_ONCE]])
            except (StoreUnavailable, LinkDownError) as error:
                log.warning("sweeping up deleted audiences failed; trying again", reason=str(error))
                await trio.sleep(_RETRY_SECONDS)

    async def _forget_some(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those that are not gone yet."""
        space = self._space
        partitions = [space.partition_of(key) for key in keys]
        looks: list[tuple[int, list[Command]]] = [
            (space.slots[partition], [(b"HKEYS", space.user(key))])
            for key, partition in zip(keys, partitions, strict=True)
        ]
        deadline = self._deadline()
        removals: list[Job] = []
        for key, partition, (tokens,) in zip(keys, partitions, await self._all(looks), strict=True):
            # Made anew for each attempt: who is refused for knowing too little of the registry knows more by then.
            commands = partial(self._forget_calls, partition, key, list(tokens))
            removals.append(Job(space.slots[partition], commands, deadline))
        removed = await self._done(removals)
        return [key for key, (gone,) in zip(keys, removed, strict=True) if not gone]

    def _forget_calls(self, partition: int, key: bytes, tokens: Sequence[bytes]) -> list[Command]:
        space = self._space
        members = [space.members(partition, token) for token in tokens]
        keys = (space.fences[partition], space.counts[partition], space.user(key), *members)
        known = str(self._connected.registry.version).encode()
        return [(b"FCALL", b"segmentd_forget", str(len(keys)).encode(), *keys, known, key, *tokens)]

    async def _sweep(self, tokens: Sequence[bytes]) -> None:
        """Raises StoreUnavailable, LinkDownError."""
        # A node may have died between registering a deletion and fencing it.
        await self._connected.registry.fence(self._space)
        before = self._connected.servers.layout
        dropped = 0
        for owner in self._connected.servers.layout.primaries.values():
            dropped += await self._sweep_server(owner, tokens)
        await self._all(
            [
                (
                    self._space.slots[partition],
                    [
                        (b"UNLINK", *[self._space.members(partition, token) for token in tokens]),
                        (b"HDEL", self._space.counts[partition], *tokens),
                        (b"HDEL", self._space.latest[partition], *tokens),
                    ],
                )
                for partition in range(self._space.partitions)
            ]
        )
        if self._connected.servers.layout.owners == before.owners:
            await self._connected.registry.register([swept_entry(token) for token in tokens])
            log.info("swept up deleted audiences", audiences=len(tokens), memberships=dropped)

    async def _sweep_server(self, owner: Owner, tokens: Sequence[bytes]) -> int:
        link = self._connected.servers.link(owner.address, "scan")
        prefixes = {prefix: partition for partition, prefix in enumerate(self._space.user_prefixes)}
        cursor, dropped = b"0", 0
        while True:
            (answer,) = await link.call(
                [(b"SCAN", cursor, b"MATCH", b"{*}u*", b"COUNT", _SCAN_COUNT, b"TYPE", b"hash")]
            )
            if isinstance(answer, Exception):
                raise StoreUnavailable(str(answer), 1)
            cursor = bytes(answer[0])
            users: defaultdict[int, list[bytes]] = defaultdict(list)
            for user in answer[1]:
                partition = prefixes.get(user[: user.index(b"}") + 2])
                if partition is not None:
                    users[partition].append(user)
            for (removed,) in await self._all(
                [
                    (self._space.slots[partition], [self._drop(partition, some, tokens)])
                    for partition, some in users.items()
                ]
            ):
                dropped += int(removed)
            if cursor == b"0":
                return dropped
            await trio.sleep(_BETWEEN_SECONDS)

    def _drop(self, partition: int, users: Sequence[bytes], tokens: Sequence[bytes]) -> Command:
        count = str(len(users) + 1).encode()
        return (b"FCALL", b"segmentd_drop", count, self._space.counts[partition], *users, *tokens)

    async def _all(self, wanted: Sequence[tuple[int, list[Command]]]) -> list[Answers]:
        """(slot, commands) → answers. Raises StoreUnavailable."""
        deadline = self._deadline()
        return await self._done([job_of(slot, commands, deadline) for slot, commands in wanted])

    async def _done(self, jobs: Sequence[Job]) -> list[Answers]:
        for job in jobs:
            self._connected.writes.submit(job)
        return [await job.reply.wait() for job in jobs]

    def _deadline(self) -> float:
        return trio.current_time() + self._patience_seconds
