"""Shard actors: each owns one `Shard` and is the only one that changes it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import trio

from segmentd.domain.shard import Shard, Word
from segmentd.runtime.interludes import nobody_waits
from segmentd.runtime.mailbox import Mailbox, MailboxClosedError
from segmentd.settings import RuntimeSettings

DROP_KEYS_SLICE = 1_000
"""Identifiers that are looked through for a deleted audience before others get a turn; about half a millisecond."""
_ENDED = object()


class Merging:
    """One group commit on its way into the shards; `done` is called when the last of them has merged its part."""

    __slots__ = ("_done", "_remaining")

    def __init__(self, parts: int, done: Callable[[], None]) -> None:
        self._remaining = parts
        self._done = done

    def part_merged(self) -> None:
        """A shard is through with its part."""
        self._remaining -= 1
        if not self._remaining:
            self._done()


Work = list[Word] | bytes | frozenset[int]
"""Changes to merge, or the key of an identifier to forget, or the numbers of audiences to drop."""


class ShardActor:
    """Merges what comes, in slices, so that queries get their turn between them."""

    def __init__(
        self,
        shard: Shard,
        *,
        inbox_messages_max: int,
        slice_changes_max: int,
        between: Callable[[], None] = nobody_waits,
    ) -> None:
        """between: called between two slices, beside the turn that the loop gets; see `Interludes`."""
        self.shard = shard
        self._between = between
        self.inbox: Mailbox[tuple[Work, Merging]] = Mailbox(messages_max=inbox_messages_max)
        self._slice_changes_max = slice_changes_max
        self._merged = 0
        """Changes since others had their turn."""
        self._working = False
        """Whether messages that were taken are not done yet."""
        self._drops: deque[Iterator[None]] = deque()

    async def run(self) -> None:
        """Until the inbox is closed and empty. Dropping audiences goes on between messages and holds none up."""
        while True:
            if len(self.inbox) or self.inbox.closed or not self._drops:
                try:
                    messages = await self.inbox.take()
                except MailboxClosedError:
                    return
                self._working = True
                for work, merging in messages:
                    await self._do(work, merging)
                self._working = False
            if self._drops:
                if next(self._drops[0], _ENDED) is _ENDED:
                    self._drops.popleft()
                await trio.lowlevel.checkpoint()

    def merge_at_once(self, changes: list[Word]) -> bool:
        """Merge now where nothing waits before it, which spares a turn of the task; False: nothing was done."""
        if self._working or len(self.inbox) or self.inbox.closed:
            return False
        self.shard.merge(changes)
        return True

    async def _do(self, work: Work, merging: Merging) -> None:
        if isinstance(work, frozenset):
            self._drops.append(self._drop(work, merging))
            return
        if isinstance(work, bytes):
            self.shard.forget(work)
        else:
            await self._merge(work)
        merging.part_merged()

    async def _merge(self, changes: list[Word]) -> None:
        size = self._slice_changes_max
        for start in range(0, len(changes), size):
            part = changes[start : start + size] if len(changes) > size else changes
            # Small messages count together: many of them in a row are one long one for whoever waits.
            if self._merged and self._merged + len(part) > size:
                await trio.lowlevel.checkpoint()
                self._merged = 0
            self._between()
            self.shard.merge(part)
            self._merged += len(part)

    def _drop(self, audiences: frozenset[int], merging: Merging) -> Iterator[None]:
        """Step by step; identifiers that come meanwhile have nothing in these audiences."""
        for table in self.shard.tables:
            keys = list(table)
            for start in range(0, len(keys), DROP_KEYS_SLICE):
                self.shard.drop(keys[start : start + DROP_KEYS_SLICE], audiences)
                yield
        merging.part_merged()


def actors_of(shards: Sequence[Shard], settings: RuntimeSettings, between: Callable[[], None]) -> list[ShardActor]:
    """One for each shard. between: see `ShardActor`."""
    inbox, piece = settings.shard_inbox_messages_max, settings.slice_changes_max
    return [ShardActor(shard, inbox_messages_max=inbox, slice_changes_max=piece, between=between) for shard in shards]
