"""Whole lists for a store that has to be waited for, and whose members nobody can walk through in a file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import trio

from segmentd.domain.membership import is_qualified, v_of
from segmentd.runtime.liststore import Compared, WholeList
from segmentd.runtime.store import LocalStore
from segmentd.storage.importscan import sweep_line

MOMENT_SECONDS = 0.001


class AwaitedLists:
    """Implements `segmentd.runtime.liststore.ListStore`: the embedded store's writes, each after a moment."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    async def number(self, audience_id: str) -> int | None:
        await trio.sleep(MOMENT_SECONDS)
        return await self._store.lists.number(audience_id)

    async def numbered(self, audience_id: str) -> int:
        await trio.sleep(MOMENT_SECONDS)
        return await self._store.lists.numbered(audience_id)

    async def floor(self, audience_id: str) -> int:
        await trio.sleep(MOMENT_SECONDS)
        return await self._store.lists.floor(audience_id)

    async def compare(self, listed: WholeList, output: Path | None) -> Compared:
        """From memory, in no order."""
        await self._store.lists.barrier()
        await trio.sleep(MOMENT_SECONDS)
        return self._compared(listed, output)

    def _compared(self, listed: WholeList, output: Path | None) -> Compared:
        prefix = bytes([listed.kind_number])
        named = {prefix + line for line in listed.staged.read_bytes().split(b"\n") if line}
        members = {key: v for key, v in self._members(listed.audience_id) if is_qualified(v)}
        floor = v_of(listed.as_of_ms, True)
        outdated = [key for key, v in members.items() if key not in named and v < floor]
        if output is not None:
            output.write_bytes(b"".join(map(sweep_line, outdated)))
        return Compared(len(members), len(outdated))

    def _members(self, audience_id: str) -> Iterable[tuple[bytes, int]]:
        for shard in self._store._shards:
            for key, _ in shard.items():
                (v,) = self._store.lookup(key, [audience_id])
                if v is not None:
                    yield key, v

    async def qualify(self, listed: WholeList, keys: Sequence[bytes], *, dry_run: bool) -> int:
        await trio.sleep(MOMENT_SECONDS)
        return await self._store.lists.qualify(listed, keys, dry_run=dry_run)

    async def raise_floor(self, number: int, as_of_ms: int) -> None:
        await trio.sleep(MOMENT_SECONDS)
        await self._store.lists.raise_floor(number, as_of_ms)

    async def disqualify(self, listed: WholeList, keys: Sequence[bytes]) -> int:
        await trio.sleep(MOMENT_SECONDS)
        return await self._store.lists.disqualify(listed, keys)
