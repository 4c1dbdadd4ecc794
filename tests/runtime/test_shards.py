"""Shard actors and the router: everything arrives once, others get their turn, and a full inbox holds the router."""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from segmentd.domain.placement import shard_of
from segmentd.domain.shard import Shard, Word
from segmentd.runtime.interludes import nobody_waits
from segmentd.runtime.router import SPLIT_SLICE, Router
from segmentd.runtime.shards import Merging, ShardActor

KEYS = [b"\0u-%d" % number for number in range(40)]


def actors(
    count: int,
    *,
    inbox_messages_max: int = 64,
    slice_changes_max: int = 100,
    between: Callable[[], None] = nobody_waits,
) -> list[ShardActor]:
    sizes: defaultdict[int, int] = defaultdict(int)
    return [
        ShardActor(
            Shard(sizes), inbox_messages_max=inbox_messages_max, slice_changes_max=slice_changes_max, between=between
        )
        for _ in range(count)
    ]


class Seen:
    """Counts how often something was announced."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.mark.parametrize("shards", [1, 3, 8])
async def test_every_change_reaches_the_shard_that_owns_it_before_it_is_announced(
    nursery: trio.Nursery, shards: int
) -> None:
    all_actors = actors(shards)
    router = Router(all_actors)
    visible = Seen()
    await router.dispatch([(key, 2) for key in KEYS], [], visible)
    assert visible.times == 0
    for actor in all_actors:
        nursery.start_soon(actor.run)
    router.close()
    await wait_all_tasks_blocked()
    assert visible.times == 1
    for key in KEYS:
        holders = [number for number, actor in enumerate(all_actors) if actor.shard.words(key)]
        assert holders == [shard_of(key, shards)]


async def test_a_group_without_changes_is_announced_at_once() -> None:
    visible = Seen()
    await Router(actors(2)).dispatch([], [], visible)
    assert visible.times == 1


async def test_a_group_is_announced_only_when_its_last_part_is_merged(nursery: trio.Nursery) -> None:
    all_actors = actors(2)
    visible = Seen()
    await Router(all_actors).dispatch([(key, 2) for key in KEYS], [], visible)
    nursery.start_soon(all_actors[0].run)
    await wait_all_tasks_blocked()
    assert visible.times == 0
    nursery.start_soon(all_actors[1].run)
    await wait_all_tasks_blocked()
    assert visible.times == 1
    nursery.cancel_scope.cancel()


async def test_a_large_group_is_split_and_merged_with_interludes_and_nothing_is_lost_or_reordered(
    nursery: trio.Nursery,
) -> None:
    merged_at: list[int] = []

    def look() -> None:
        merged_at.append(sum(actor.shard.identifiers() for actor in all_actors))

    all_actors = actors(3, slice_changes_max=100, between=look)
    count = 2 * SPLIT_SLICE + 1
    changes = [(b"\0u-%d" % number, 2) for number in range(count)]
    router, visible = Router(all_actors, between=look), Seen()
    await router.dispatch(changes, [], visible)
    assert merged_at == [0, 0, 0]
    for actor in all_actors:
        parts = [part for part, _ in (message for message, _ in actor.inbox._held) if isinstance(part, list)]
        owned = [change for change in changes if all_actors[shard_of(change[0], 3)] is actor]
        assert [change for part in parts for change in part] == owned
        nursery.start_soon(actor.run)
    router.close()
    await wait_all_tasks_blocked()
    assert (visible.times, sum(actor.shard.identifiers() for actor in all_actors)) == (1, count)
    # Whoever looks never finds more than one slice merged since the last look.
    assert max(after - before for before, after in pairwise([*merged_at, count])) <= 100


async def test_a_full_inbox_makes_the_router_wait_and_nothing_is_lost(nursery: trio.Nursery) -> None:
    [actor] = actors(1, inbox_messages_max=2)
    router = Router([actor])
    visible = Seen()

    async def dispatch_all() -> None:
        for number in range(5):
            await router.dispatch([(b"\0%d" % number, 2)], [], visible)
        router.close()

    nursery.start_soon(dispatch_all)
    await wait_all_tasks_blocked()
    assert (len(actor.inbox), visible.times) == (2, 0)
    nursery.start_soon(actor.run)
    await wait_all_tasks_blocked()
    assert (visible.times, actor.shard.identifiers()) == (5, 5)


async def turns_while(actor: ShardActor, messages: list[list[Word]]) -> int:
    """How often another task runs while the actor merges what is in its inbox."""
    turns = 0
    merged = trio.Event()

    async def others() -> None:
        nonlocal turns
        while not merged.is_set():
            await trio.lowlevel.checkpoint()
            turns += 1

    for message in messages[:-1]:
        actor.inbox.put_nowait((message, Merging(1, lambda: None)))
    actor.inbox.put_nowait((messages[-1], Merging(1, merged.set)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        nursery.start_soon(actor.run)
        await merged.wait()
        actor.inbox.close()
    return turns


@pytest.mark.parametrize("message_size", [1, 5, 10, 25, 100])
async def test_others_get_their_turn_after_every_slice_however_the_changes_come(message_size: int) -> None:
    changes: list[Word] = [(b"\0%d" % number, 2) for number in range(100)]
    [actor] = actors(1, slice_changes_max=10, inbox_messages_max=1_000)
    messages = [changes[start : start + message_size] for start in range(0, 100, message_size)]
    assert await turns_while(actor, messages) >= 9
    assert actor.shard.identifiers() == 100


async def test_forgetting_comes_after_the_changes_of_the_same_record(nursery: trio.Nursery) -> None:
    all_actors = actors(2)
    router = Router(all_actors)
    visible = Seen()
    await router.dispatch([(KEYS[0], 2), (KEYS[1], 2)], [(KEYS[0], 5)], visible)
    for actor in all_actors:
        nursery.start_soon(actor.run)
    await wait_all_tasks_blocked()
    assert visible.times == 1
    assert [[actor.shard.words(key) for actor in all_actors if actor.shard.words(key)] for key in KEYS[:2]] == [
        [],
        [(2,)],
    ]
    nursery.cancel_scope.cancel()
