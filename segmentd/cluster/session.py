"""A short visit to the cluster, for commands that do one thing and end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from segmentd.cluster.connected import ClusterUnusableError, Connected
from segmentd.cluster.promises import WeakClusterError
from segmentd.cluster.registry import Entry
from segmentd.domain.refusals import Refusal
from segmentd.runtime.groups import first_of
from segmentd.settings import Settings

T = TypeVar("T")


class VisitError(Exception):
    """The cluster could not be visited, or refused. The message says why."""


def visit(settings: Settings, act: Callable[[Connected], Awaitable[T]]) -> T:
    """What `act` gives. Blocking. Raises VisitError."""
    try:
        return trio.run(_visit, settings, act)
    except* (WeakClusterError, ClusterUnusableError, Refusal, OSError, trio.TooSlowError) as group:
        first = first_of(group)
        reason = f"no answer within {settings.store.acknowledge_seconds_max:g} s"
        raise VisitError(reason if isinstance(first, trio.TooSlowError) else str(first)) from None


async def _visit(settings: Settings, act: Callable[[Connected], Awaitable[T]]) -> T:
    connected = Connected(settings.store, settings.runtime, _not_recorded)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(settings.store.acknowledge_seconds_max):
            await connected.open(nursery)
        result = await act(connected)
        nursery.cancel_scope.cancel()
    return result


async def _not_recorded(_entries: Sequence[Entry]) -> None:
    """A command has no outbox: whoever runs it sees whether it worked."""
