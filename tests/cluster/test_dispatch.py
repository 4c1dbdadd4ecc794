"""Jobs on their way to servers that move, refuse, hang and forget: each ends once, rightly, or late with a reason."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing
from coredis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError
from trio.testing import MockClock

from segmentd.cluster.batches import Durability, Job, job_of
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.layout import EMPTY, Layout, Owner
from segmentd.cluster.link import Address, Answers, Command, Link, LinkDownError
from segmentd.cluster.servers import Servers
from segmentd.domain.refusals import StoreUnavailable

A, B = Owner("a", Address("h", 1)), Owner("b", Address("h", 2))
MARK, PUT = b"mark", b"put"
Act = Callable[[Command], Any]


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class World:
    """Stands for `Servers`: two servers whose answers the test writes, and everything that they were sent."""

    def __init__(self) -> None:
        self.layout = EMPTY
        self.on_layout: list[Callable[[Layout], None]] = []
        self.suspicions = 0
        self.down: set[Address] = set()
        self.acts: dict[Address, Act] = {A.address: lambda _: b"a", B.address: lambda _: b"b"}
        self.replicas = 1
        self.sent: list[tuple[Address, list[Command]]] = []
        self.refreshed = self.loaded = 0
        self.give({slot: A if slot < 10 else B for slot in range(20)})

    def give(self, owners: dict[int, Owner]) -> None:
        self.layout = Layout(owners, {}, {owner.node_id: owner for owner in owners.values()})
        for told in self.on_layout:
            told(self.layout)

    def owner_of(self, slot: int) -> Owner | None:
        return self.layout.owners.get(slot)

    def suspect(self) -> None:
        self.suspicions += 1

    def link(self, address: Address, _use: str) -> Link:
        return cast("Link", FakeLink(self, address))

    async def load(self, link: Link) -> None:
        self.loaded += 1
        await link.call([(b"FUNCTION LOAD",)])

    async def refresh(self) -> None:
        self.refreshed += 1

    def commands(self, name: bytes) -> list[tuple[Address, Command]]:
        return [(address, command) for address, batch in self.sent for command in batch if command[0] == name]


class FakeLink:
    def __init__(self, world: World, address: Address) -> None:
        self.world = world
        self.address = address

    async def call(self, commands: Sequence[Command]) -> Answers:
        await trio.sleep(0.001)
        if self.address in self.world.down:
            raise LinkDownError(f"{self.address}: no connection")
        self.world.sent.append((self.address, list(commands)))
        return [
            self.world.replicas if command[0] == b"WAIT" else self.world.acts[self.address](command)
            for command in commands
        ]


@asynccontextmanager
async def dispatching(world: World, *, durable: bool = True) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(
        cast("Servers", world),
        "test",
        durability=Durability(1, 500, lambda slot: (MARK, b"%d" % slot)) if durable else None,
        batch_weight_max=100,
        load=world.load,
        refresh=world.refresh,
        retry_after_seconds=7,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run)
        await trio.testing.wait_all_tasks_blocked()
        yield dispatcher
        nursery.cancel_scope.cancel()


def once(error: Exception, then: Any = b"done") -> Act:
    """Refuses the first command that is no mark, and does what comes after it."""
    waiting = [error]
    return lambda command: waiting.pop() if waiting and command[0] == PUT else then


def put(slot: int, seconds: float = 10.0, *, weight: int = 1, commands: int = 1) -> Job:
    return job_of(
        slot, [(PUT, b"%d" % number) for number in range(commands)], trio.current_time() + seconds, weight=weight
    )


async def done(dispatcher: Dispatcher, *jobs: Job) -> list[Answers]:
    for job in jobs:
        dispatcher.submit(job)
    return [await job.reply.wait() for job in jobs]


@pytest.mark.usefixtures("autojump_clock")
class TestDispatcher:
    async def test_what_waits_for_one_owner_is_one_batch_that_ends_in_a_mark_and_a_wait(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            answers = await done(dispatcher, put(1), put(2, commands=2), put(11))
        assert answers == [[b"a"], [b"a", b"a"], [b"b"]]
        batches = {address: [command[0] for command in batch] for address, batch in world.sent}
        assert batches == {A.address: [PUT] * 3 + [MARK, MARK, b"WAIT"], B.address: [PUT, MARK, b"WAIT"]}

    async def test_a_slot_that_has_moved_is_looked_for_and_its_job_goes_there(self) -> None:
        world = World()
        world.acts[A.address] = lambda _: MovedError("1 h:2")
        async with dispatching(world) as dispatcher:
            dispatcher.submit(job := put(1))
            await trio.sleep(0.1)
            assert world.suspicions > 0
            world.give(dict.fromkeys(range(20), B))
            assert await job.reply.wait() == [b"b"]

    async def test_a_slot_that_is_moving_takes_only_what_has_moved_with_a_mark_of_its_own(self) -> None:
        world = World()
        world.acts[A.address] = lambda command: AskError("1 h:2") if command == (PUT, b"1") else b"a"
        async with dispatching(world) as dispatcher:
            assert await done(dispatcher, put(1, commands=3)) == [[b"a", b"b", b"a"]]
        address, batch = world.sent[-1]
        assert address == B.address
        assert [command[0] for command in batch] == [b"ASKING", PUT, b"ASKING", MARK, b"WAIT"]

    async def test_where_a_slot_moves_to_is_the_same_host_if_none_is_named(self) -> None:
        world = World()
        error = AskError("1 h:2")
        error.host = ""
        world.acts[A.address] = lambda _: error
        async with dispatching(world, durable=False) as dispatcher:
            assert await done(dispatcher, put(1)) == [[b"b"]]

    @pytest.mark.parametrize("error", [TryAgainError("x"), ClusterDownError("x"), ResponseError("whatever that is")])
    async def test_what_cannot_be_done_now_is_tried_again(self, error: Exception) -> None:
        world = World()
        world.acts[A.address] = once(error)
        async with dispatching(world) as dispatcher:
            assert await done(dispatcher, put(1), put(2)) == [[b"done"], [b"done"]]
        assert len(world.commands(PUT)) == 3, "what was done is not repeated"

    async def test_stale_writers_refresh_once_for_all_of_a_batch(self) -> None:
        world = World()
        world.acts[A.address] = lambda _: ResponseError("SEGMENTD_STALE 7") if not world.refreshed else b"a"
        async with dispatching(world, durable=False) as dispatcher:
            assert await done(dispatcher, *[put(number % 10) for number in range(50)]) == [[b"a"]] * 50
        assert world.refreshed == 1

    async def test_functions_are_loaded_once_for_all_of_a_batch(self) -> None:
        world = World()
        world.acts[A.address] = lambda _: ResponseError("Function not found") if not world.loaded else b"a"
        async with dispatching(world, durable=False) as dispatcher:
            assert await done(dispatcher, *[put(number % 10) for number in range(50)]) == [[b"a"]] * 50
        assert world.loaded == 1

    async def test_a_link_that_is_lost_while_functions_are_loaded_settles_nothing_twice(self) -> None:
        world = World()
        # The last one alone: the others are settled by then.
        world.acts[A.address] = lambda command: (
            ResponseError("Function not found") if command == (PUT, b"1") and not world.loaded else b"a"
        )
        told: list[Exception | None] = []

        async def load(link: Link) -> None:
            world.loaded += 1
            if world.loaded == 1:
                raise LinkDownError("lost")

        world.load = load  # type: ignore[method-assign]
        async with dispatching(world) as dispatcher:
            jobs = [put(1), put(2), put(3, commands=2)]
            for job in jobs:
                job.reply.then(told.append)
                dispatcher.submit(job)
            await trio.sleep(5)
        assert told == [None] * 3

    async def test_too_few_replicas_are_no_success_until_there_are_enough(self) -> None:
        world = World()
        world.replicas = 0
        async with dispatching(world) as dispatcher:
            dispatcher.submit(job := put(1))
            with trio.move_on_after(3):
                await job.reply.wait()
                raise AssertionError("it was not safe")
            world.replicas = 1
            assert await job.reply.wait() == [b"a"]

    async def test_a_mark_that_was_not_written_is_no_success_if_there_is_no_other(self) -> None:
        world = World()
        world.acts[A.address] = lambda command: ResponseError("x") if command == (MARK, b"1") else b"a"
        async with dispatching(world) as dispatcher:
            assert await done(dispatcher, put(1), put(2)) == [[b"a"], [b"a"]]
            with pytest.raises(StoreUnavailable, match="x"):
                await done(dispatcher, put(1, seconds=2))

    async def test_a_job_that_is_too_late_fails_with_the_reason_and_when_to_come_back(self) -> None:
        world = World()
        world.down.add(A.address)
        async with dispatching(world) as dispatcher:
            begun = trio.current_time()
            with pytest.raises(StoreUnavailable, match="h:1: no connection") as refused:
                await done(dispatcher, put(1, seconds=4))
            assert 3 < trio.current_time() - begun <= 4.5
            assert refused.value.retry_after_seconds == 7
            assert world.suspicions > 0

    async def test_a_slot_without_an_owner_waits_for_one_until_its_deadline(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            dispatcher.submit(late := put(77, seconds=1))
            dispatcher.submit(job := put(77, seconds=9))
            with pytest.raises(StoreUnavailable, match="has no owner, or one that is not up to date"):
                await late.reply.wait()
            world.give({77: B})
            assert await job.reply.wait() == [b"b"]

    async def test_a_held_slot_lets_only_what_brings_its_owner_up_to_date_pass(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            dispatcher.held.add(1)
            dispatcher.submit(waiting := put(1))
            assert await done(dispatcher, put(1, weight=0), put(2)) == [[b"a"], [b"a"]]
            assert await dispatcher.call(1, [(PUT, b"")], trio.current_time() + 1) == [b"a"]
            with trio.move_on_after(1):
                await waiting.reply.wait()
                raise AssertionError("it was held")
            dispatcher.release({1})
            assert await waiting.reply.wait() == [b"a"]

    async def test_whoever_goes_away_cuts_nothing_off(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            with trio.move_on_after(0.0005):
                await done(dispatcher, put(1))
            await trio.sleep(1)
        assert len(world.commands(PUT)) == 1

    async def test_an_owner_that_goes_and_comes_back_is_served_again(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            for owner in (B, A, B, A):
                world.give(dict.fromkeys(range(20), owner))
                await trio.sleep(0.01)
                assert await done(dispatcher, put(1)) == [[owner.node_id.encode()]]

    async def test_jobs_that_refuse_to_be_made_or_have_nothing_to_do_end_at_once(self) -> None:
        world = World()

        def refuse() -> list[Command]:
            raise StoreUnavailable("deleted", 1)

        async with dispatching(world) as dispatcher:
            deadline = trio.current_time() + 1
            with pytest.raises(StoreUnavailable, match="deleted"):
                await done(dispatcher, Job(1, refuse, deadline))
            assert await done(dispatcher, Job(1, list, deadline)) == [[]]
        assert world.sent == []

    async def test_whoever_hears_that_it_was_too_late_may_submit_something_else(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            others = [put(number, seconds=9) for number in range(78, 90)]
            late = put(77, seconds=1)

            def submit(_: Exception | None) -> None:
                for other in others:
                    dispatcher.submit(other)

            late.reply.then(submit)
            dispatcher.submit(late)
            await trio.sleep(3)
            world.give(dict.fromkeys(range(70, 90), A))
            assert [await other.reply.wait() for other in others] == [[b"a"]] * len(others)

    async def test_a_batch_is_bounded(self) -> None:
        world = World()
        async with dispatching(world) as dispatcher:
            dispatcher.held.add(1)
            jobs = [put(1, weight=30) for _ in range(10)]
            for job in jobs:
                dispatcher.submit(job)
            dispatcher.release({1})
            for job in jobs:
                await job.reply.wait()
        assert [len(batch) - 2 for _, batch in world.sent] == [4, 4, 2]
