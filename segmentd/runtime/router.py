"""The router: a committed group → its parts → the shards that own them → the replies.

Owns nothing but the way. It runs inside the committer's task, after the commit: what it hands on is durable, so it
must arrive; a full shard inbox makes the committer wait, its queue fill, and the edge refuse.
"""

from collections.abc import Callable, Sequence
from typing import Final

from segmentd.domain.placement import shard_of, split
from segmentd.domain.shard import Word
from segmentd.runtime.interludes import nobody_waits
from segmentd.runtime.mailbox import Reply
from segmentd.runtime.shards import Merging, ShardActor

SPLIT_SLICE: Final = 2_000
"""Changes that are split before others get a turn; about a quarter of a millisecond."""


class Router:
    """Knows every shard."""

    def __init__(
        self,
        shards: Sequence[ShardActor],
        at_once_changes_max: int = 0,
        between: Callable[[], None] = nobody_waits,
    ) -> None:
        """at_once_changes_max: how large a group may be merged without a turn for others.

        between: called between two slices of longer work; see `Interludes`.
        """
        self._shards = shards
        self._at_once_changes_max = at_once_changes_max
        self._between = between

    async def dispatch(
        self, changes: Sequence[Word], forgotten: Sequence[tuple[bytes, int]], visible: Callable[[], None]
    ) -> None:
        """Hand durable changes, and after them identifiers to forget, to their shards.

        `visible` is called when all of it is done.

        Returns when every part is in its shard's inbox.
        """
        if not changes and not forgotten:
            visible()
            return
        count = len(self._shards)
        parts = self._split(changes)
        if len(changes) <= self._at_once_changes_max:
            parts = [(number, part) for number, part in parts if not self._shards[number].merge_at_once(part)]
        goners = [(shard_of(key, count), key) for key, _ in forgotten]
        if not parts and not goners:
            visible()
            return
        merging = Merging(len(parts) + len(goners), visible)
        for number, part in parts:
            await self._shards[number].inbox.put((part, merging))
        for number, key in goners:
            await self._shards[number].inbox.put((key, merging))

    def _split(self, changes: Sequence[Word]) -> list[tuple[int, list[Word]]]:
        count = len(self._shards)
        if len(changes) <= SPLIT_SLICE:
            return split(changes, count)
        parts: list[list[Word]] = [[] for _ in range(count)]
        for start in range(0, len(changes), SPLIT_SLICE):
            for number, part in split(changes[start : start + SPLIT_SLICE], count):
                parts[number] += part
            self._between()
        return [(number, part) for number, part in enumerate(parts) if part]

    async def drop(self, audiences: frozenset[int], done: Callable[[], None]) -> None:
        """Have deleted audiences dropped, after all that was dispatched before; `done` is called when none is left."""
        merging = Merging(len(self._shards), done)
        for shard in self._shards:
            await shard.inbox.put((audiences, merging))

    async def flush(self) -> None:
        """Wait until everything that was dispatched is merged."""
        merged: Reply[None] = Reply()
        merging = Merging(len(self._shards), lambda: merged.set(None))
        for shard in self._shards:
            await shard.inbox.put(([], merging))
        await merged.wait()

    def close(self) -> None:
        """Close the shards' inboxes; what is in them is still merged."""
        for shard in self._shards:
            shard.inbox.close()
