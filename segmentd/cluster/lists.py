"""Whole lists in the cluster, one slice at a time. Implements `segmentd.runtime.liststore.ListStore`.

The two writes are those of the embedded store (`segmentd.runtime.wholelists`): `v = 2T` for the listed, `2T - 1` for
members that are not listed. Between them the floor is registered and fenced, so that no node lets an older
qualification through. Who is outdated is found by one walk along the sorted list and the members, merged in key order.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import structlog
import trio

from segmentd.cluster.audiences import floor_entry
from segmentd.cluster.members import ClusterMembers
from segmentd.cluster.store import ClusterStore
from segmentd.domain.membership import V_BITS, is_qualified, v_of
from segmentd.domain.refusals import LimitReached, ShuttingDown, Unavailable
from segmentd.runtime.liststore import AudienceGoneError, Compared, WholeList
from segmentd.storage.importscan import sweep_line

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_RETRY_SECONDS_FIRST: Final = 0.1
_RETRY_SECONDS_MAX: Final = 5.0
_LINES_AT_ONCE: Final = 1_000
"""Lines of a list that are read before others may run: a few members may stand far apart in a long list."""
_BUFFER_BYTES: Final = 1 << 18


class ClusterLists:
    """Used by one import at a time. An audience is told by its token, as a number."""

    def __init__(self, store: ClusterStore, members: ClusterMembers) -> None:
        self._store = store
        self._members = members

    async def number(self, audience_id: str) -> int | None:
        """See ListStore."""
        await patiently(self._store.registry.refresh)
        number = self._store.audiences.number(audience_id)
        return None if number is None else int.from_bytes(self._store.audiences.token(number))

    async def numbered(self, audience_id: str) -> int:
        """See ListStore."""
        self._store.audiences.unknown([(b"", audience_id, 0)])  # raises LimitReached
        await patiently(lambda: self._store.register_audiences({audience_id}))
        number = await self.number(audience_id)
        if number is None:
            raise AudienceGoneError
        return number

    async def floor(self, audience_id: str) -> int:
        """See ListStore."""
        await patiently(self._store.registry.refresh)
        return self._store.audiences.floor(audience_id)

    async def compare(self, listed: WholeList, output: Path | None) -> Compared:
        """See ListStore."""
        await patiently(self._store.registry.refresh)
        with listed.staged.open("rb", _BUFFER_BYTES) as staged:
            if output is None:
                return await self._walk(listed, staged, None)
            with output.open("wb", _BUFFER_BYTES) as out:
                found = await self._walk(listed, staged, out)
                out.flush()
                await trio.to_thread.run_sync(os.fsync, out.fileno())
            return found

    async def qualify(self, listed: WholeList, keys: Sequence[bytes], *, dry_run: bool) -> int:
        """See ListStore."""
        target = v_of(listed.as_of_ms, True)
        if listed.number is None:
            return len(keys)
        versions = await self._versions(listed, keys)
        await self._write(
            listed,
            [] if dry_run else [key for key, v in zip(keys, versions, strict=True) if v is None or v < target],
            target,
        )
        return sum(v is None or (v < target and not is_qualified(v)) for v in versions)

    async def raise_floor(self, number: int, as_of_ms: int) -> None:
        """See ListStore."""
        entry = floor_entry(number.to_bytes(8), v_of(as_of_ms, True))

        async def raised() -> None:
            await self._store.registry.register([entry])
            await self._store.registry.fence(self._store.connected.keyspace)

        await patiently(raised)

    async def disqualify(self, listed: WholeList, keys: Sequence[bytes]) -> int:
        """See ListStore."""
        target = v_of(listed.as_of_ms, True)
        versions = await self._versions(listed, keys)
        outdated = [
            key for key, v in zip(keys, versions, strict=True) if v is not None and v < target and is_qualified(v)
        ]
        await self._write(listed, outdated, target - 1)
        return len(outdated) + sum(v == target - 1 for v in versions)

    async def _versions(self, listed: WholeList, keys: Sequence[bytes]) -> list[int | None]:
        found: list[int | None] = []

        async def read() -> None:
            found[:] = await self._store.reads.listed(keys, listed.audience_id)

        await patiently(read)
        if await self.number(listed.audience_id) != listed.number:
            raise AudienceGoneError
        return found

    async def _write(self, listed: WholeList, keys: Sequence[bytes], v: int) -> None:
        if not keys or listed.number is None:
            return
        token = listed.number.to_bytes(8)

        async def written() -> None:
            number = self._store.audiences.by_token(token)
            if number is None:
                raise AudienceGoneError
            word = number << V_BITS | v
            await self._store.write([(key, word) for key in keys], listed.taken_ms)

        await patiently(written)

    async def _walk(self, listed: WholeList, staged: BinaryIO, out: BinaryIO | None) -> Compared:
        """As `segmentd.storage.importscan` does over the index."""
        v_floor = v_of(listed.as_of_ms, True)
        found = outdated = passed = 0
        line = staged.readline()
        async for key, v in self._members.all(listed.audience_id, patient=patiently):
            found += 1
            if key[0] == listed.kind_number:
                value = key[1:] + b"\n"
                while line and line < value:
                    line = staged.readline()
                    passed += 1
                    if not passed % _LINES_AT_ONCE:
                        await trio.lowlevel.checkpoint()
                if line == value:
                    continue
            if v < v_floor:
                outdated += 1
                if out is not None:
                    out.write(sweep_line(key))
        return Compared(found, outdated)


async def patiently(act: Callable[[], Awaitable[None]]) -> None:
    """Do it, however long the cluster is away. Raises what is no matter of time."""
    pause = _RETRY_SECONDS_FIRST
    while True:
        try:
            await act()
        except (LimitReached, AudienceGoneError):
            raise
        except ShuttingDown:
            # The import goes on at the next start; whoever runs it is cancelled.
            await trio.sleep_forever()
        except Unavailable as refusal:
            log.warning("an import waits for the cluster", reason=refusal.message)
            await trio.sleep(pause)
            pause = min(2 * pause, _RETRY_SECONDS_MAX)
        else:
            return
