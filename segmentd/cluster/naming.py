"""Events on their way to `Writes`: what they name must exist first.

An audience that is heard of for the first time is registered before its events are sent. One that another node has
deleted, unknown to this one, is refused by the fence; then its events are for the next audience of the same id, and go
round once more. Both wait here, each in a task of its own, bounded by number and by the deadline of the request.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import trio

from segmentd.cluster.audiences import Audiences, audience_entry
from segmentd.cluster.registry import Registry
from segmentd.cluster.writes import Write, Writes
from segmentd.domain.events import Change
from segmentd.domain.refusals import Overloaded, Refusal, StoreUnavailable
from segmentd.runtime.mailbox import Reply

_REGISTERING_MAX: Final = 64
"""Requests that register their audiences at the same time; the others wait."""


class Naming:
    """Plain calls on the loop's thread; `start` it in the nursery that the waiting ones live in."""

    def __init__(
        self,
        audiences: Audiences,
        registry: Registry,
        writes: Writes,
        *,
        requests_max: int,
        changes_max: int,
        retry_after_seconds: int,
    ) -> None:
        """requests_max, changes_max: of those that wait for their audiences."""
        self._audiences = audiences
        self._registry = registry
        self._writes = writes
        self._requests_max = requests_max
        self._changes_max = changes_max
        self._retry_after_seconds = retry_after_seconds
        self._requests = 0
        self._changes = 0
        self._coming: Counter[str] = Counter()
        """Audiences that are being registered, and for how many requests."""
        self._turns = trio.CapacityLimiter(_REGISTERING_MAX)
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """From now on it can be submitted to."""
        self._nursery = nursery

    def submit(self, changes: Sequence[Change], reply: Reply[None], deadline: float) -> None:
        """Raises LimitReached, Overloaded, ShuttingDown, StoreUnavailable; then nothing of it is applied."""
        unknown = self._audiences.unknown(changes, self._coming)
        if not unknown:
            self._submit(changes, reply, deadline)
            return
        is_full = self._requests >= self._requests_max or self._changes + len(changes) > self._changes_max
        if self._requests and is_full:
            message = "Too many writes wait for their audiences to be registered; send it again."
            raise Overloaded(message, self._retry_after_seconds)
        assert self._nursery is not None  # noqa: S101  # nothing is submitted before `run` has started
        self._requests += 1
        self._changes += len(changes)
        self._coming.update(unknown)
        self._nursery.start_soon(self._register_first, changes, unknown, reply, deadline)

    async def register(self, audience_ids: Collection[str]) -> None:
        """Have those of them that do not exist exist. Raises StoreUnavailable."""
        known = self._audiences
        entries = [
            audience_entry(audience_id, known.deleted_times(audience_id), known.floor(audience_id))
            for audience_id in sorted(audience_ids)
            if known.number(audience_id) is None
        ]
        if entries:
            await self._registry.register(entries)

    async def _register_first(
        self, changes: Sequence[Change], coming: set[str], reply: Reply[None], deadline: float
    ) -> None:
        try:
            with trio.move_on_at(deadline) as scope:
                async with self._turns:
                    # Again for those that are deleted elsewhere at the same moment.
                    while unknown := self._audiences.unknown(changes):
                        await self.register(unknown)
                    self._submit(changes, reply, deadline)
            if scope.cancelled_caught:
                message = "New audiences could not be registered in time; send it again."
                reply.fail(StoreUnavailable(message, self._retry_after_seconds))
        except Refusal as refusal:
            reply.fail(refusal)
        finally:
            self._requests -= 1
            self._changes -= len(changes)
            self._coming.subtract(coming)
            self._coming = +self._coming

    def _submit(self, changes: Sequence[Change], reply: Reply[None], deadline: float) -> None:
        again = partial(self._again, changes, reply, deadline)
        self._writes.submit(Write(self._audiences.words(changes), None, deadline, reply, again))

    def _again(self, changes: Sequence[Change], reply: Reply[None], deadline: float) -> None:
        try:
            self.submit(changes, reply, deadline)
        except Refusal as refusal:
            reply.fail(refusal)
