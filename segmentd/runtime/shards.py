"""Shard actors: each owns one `Shard` and is the only one that changes it."""

from collections.abc import Callable

import trio

from segmentd.domain.shard import Shard, Word
from segmentd.runtime.mailbox import Mailbox, MailboxClosedError


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


class ShardActor:
    """Merges what comes, in slices, so that queries get their turn between them."""

    def __init__(self, shard: Shard, *, inbox_messages_max: int, slice_changes_max: int) -> None:
        self.shard = shard
        self.inbox: Mailbox[tuple[list[Word] | bytes, Merging]] = Mailbox(messages_max=inbox_messages_max)
        """Changes to merge, or the key of an identifier to forget."""
        self._slice_changes_max = slice_changes_max

    async def run(self) -> None:
        """Until the inbox is closed and empty."""
        while True:
            try:
                messages = await self.inbox.take()
            except MailboxClosedError:
                return
            for work, merging in messages:
                if isinstance(work, bytes):
                    self.shard.forget(work)
                else:
                    await self._merge(work)
                merging.part_merged()

    async def _merge(self, changes: list[Word]) -> None:
        size = self._slice_changes_max
        for start in range(0, len(changes), size):
            if start:
                await trio.lowlevel.checkpoint()
            self.shard.merge(changes[start : start + size] if len(changes) > size else changes)
