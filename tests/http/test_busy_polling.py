"""Busy polling: for whom it looks, for how long, and that whatever else can go on comes first."""

import socket
from collections.abc import Callable
from itertools import pairwise
from math import inf

import pytest
import trio
import trio.testing

from segmentd.http.busypolling import LOOKS_SECONDS_MAX, BusyPolling
from segmentd.http.exchange import WAITING, Waiting
from segmentd.http.reactor import Reactor

SECONDS_MAX = 50e-6


class Clock:
    """Stands still until it is moved, in steps of `step` each time somebody looks."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self.count += 1


def looks_after(pause: float, seconds_max: float = SECONDS_MAX) -> int:
    """How many looks there are after a request that came so long after the answer before it."""
    clock = Clock()
    polling = BusyPolling(seconds_max, clock)
    polling.asked(pause)
    polling.answered()
    clock.step = 10e-6
    return sum(1 for _ in polling.looks())


def test_it_looks_for_clients_that_came_back_at_once() -> None:
    assert looks_after(20e-6) == pytest.approx(SECONDS_MAX / 10e-6, abs=1)


@pytest.mark.parametrize(
    ("pause", "seconds_max"), [(1e-3, SECONDS_MAX), (inf, SECONDS_MAX), (0.0, 0.0)], ids=["slow", "new", "off"]
)
def test_it_looks_for_nobody_where_clients_are_slow_or_new_or_it_is_off(pause: float, seconds_max: float) -> None:
    assert looks_after(pause, seconds_max) == 0


def test_it_ends_however_much_is_asked() -> None:
    clock = Clock(step=10e-6)
    polling = BusyPolling(SECONDS_MAX, clock)
    polling.asked(0.0)
    polling.answered()
    begun = clock.now
    for _ in polling.looks():
        polling.asked(0.0)
        polling.answered()
    assert LOOKS_SECONDS_MAX <= clock.now - begun < 2 * LOOKS_SECONDS_MAX


class Talk:
    """A client that sends its next request while the answer to the last one is being made.

    requests: few enough for the socket to hold all answers.
    """

    def __init__(self, requests: int, *, last: Callable[[], tuple[bytes, bool] | Waiting]) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.answers = 0
        self._requests = requests
        self._last = last

    def respond(self, received: bytes) -> tuple[bytes, bool] | Waiting:
        self.answers += 1
        if self.answers == self._requests:
            return self._last()
        self.there.send(b"next")
        return received, True


async def turns_for(talk: Talk, nursery: trio.Nursery, clock: Clock) -> int:
    """How many turns of the loop it takes until the client has nothing more to say."""
    reactor = Reactor(75.0, BusyPolling(SECONDS_MAX, clock))
    nursery.start_soon(reactor.run)
    connection = reactor.add(talk.here.fileno(), talk.respond)
    nursery.start_soon(reactor.rest, connection)
    await trio.testing.wait_all_tasks_blocked()
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    talk.there.send(b"first")
    await trio.testing.wait_all_tasks_blocked(cushion=0.01)
    trio.lowlevel.remove_instrument(turns)
    return turns.count


async def test_quick_clients_are_answered_without_turns_of_the_loop(nursery: trio.Nursery) -> None:
    clock, requests = Clock(), 50

    def quiet() -> tuple[bytes, bool]:
        clock.step = 1.0
        return b"last", True

    talk = Talk(requests, last=quiet)
    turns = await turns_for(talk, nursery, clock)
    assert talk.answers == requests
    assert turns < 10
    slow = Talk(requests, last=lambda: (b"last", True))
    assert await turns_for(slow, nursery, Clock(step=1.0)) >= requests
    assert slow.answers == requests


async def test_the_loop_goes_on_as_soon_as_a_request_is_left_to_others(nursery: trio.Nursery) -> None:
    talk = Talk(5, last=lambda: WAITING)
    # By this clock it would look on for ever.
    assert await turns_for(talk, nursery, Clock()) >= 1
    assert talk.answers == 5


async def test_a_task_that_can_go_on_waits_for_a_bounded_time(nursery: trio.Nursery) -> None:
    step = LOOKS_SECONDS_MAX / 20
    talk = Talk(200, last=lambda: (b"last", True))
    answers = [0]

    async def other() -> None:
        while talk.answers < 200:
            await trio.lowlevel.checkpoint()
            answers.append(talk.answers)

    reactor = Reactor(75.0, BusyPolling(2 * step, Clock(step / 4)))
    nursery.start_soon(reactor.run)
    nursery.start_soon(reactor.rest, reactor.add(talk.here.fileno(), talk.respond))
    await trio.testing.wait_all_tasks_blocked()
    talk.there.send(b"first")
    with trio.fail_after(20):
        await other()
    assert max(after - before for before, after in pairwise(answers)) <= 4 * 20


async def test_many_slow_clients_are_not_a_quick_one(nursery: trio.Nursery) -> None:
    clock = Clock()
    polling = BusyPolling(SECONDS_MAX, clock)
    reactor = Reactor(75.0, polling)
    nursery.start_soon(reactor.run)
    talks = [Talk(1_000, last=lambda: (b"last", True)) for _ in range(20)]
    for talk in talks:
        talk.respond = lambda received: (received, True)  # type: ignore[method-assign]
        nursery.start_soon(reactor.rest, reactor.add(talk.here.fileno(), talk.respond))
    for _ in range(2):
        for talk in talks:
            talk.there.send(b"each in turn, soon after the one before")
            await trio.testing.wait_all_tasks_blocked()
            assert not polling.quick
            clock.now += SECONDS_MAX
