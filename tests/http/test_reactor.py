"""The reactor: what it answers on the spot, what it leaves to a connection's own task, and that all get their turn."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import trio
import trio.testing

from segmentd.http.busypolling import BusyPolling
from segmentd.http.reactor import ANSWERS_A_TURN_MAX, Reactor
from segmentd.http.resting import Connection

IDLE_SECONDS_MAX = 75.0


class Pair(NamedTuple):
    """Both ends of a connection; `here` is the server's."""

    here: socket.socket
    there: socket.socket


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [Pair(*socket.socketpair()) for _ in range(3 * ANSWERS_A_TURN_MAX)]
    for pair in made:
        pair.here.setblocking(False)
        pair.there.setblocking(False)
    yield made
    for pair in made:
        pair.here.close()
        pair.there.close()


@pytest.fixture
async def reactor(nursery: trio.Nursery) -> Reactor:
    made = Reactor(IDLE_SECONDS_MAX, BusyPolling(0.0))
    nursery.start_soon(made.run)
    return made


def echo(received: bytes) -> tuple[bytes, bool] | None:
    """Answers what begins with `echo`."""
    return (received, True) if received.startswith(b"echo") else None


async def heard(pair: Pair) -> bytes:
    """What the client gets next."""
    with trio.fail_after(20):
        await trio.lowlevel.wait_readable(pair.there)
    return pair.there.recv(1_000_000)


async def test_what_is_answered_on_the_spot_wakes_nobody(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    pair, woken = pairs[0], trio.Event()
    connection = reactor.add(pair.here.fileno(), echo)

    async def rest() -> None:
        await reactor.rest(connection)
        woken.set()

    nursery.start_soon(rest)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(5):
        pair.there.send(b"echo %d" % number)
        assert await heard(pair) == b"echo %d" % number
    assert not woken.is_set()
    pair.there.send(b"else")
    await woken.wait()
    assert (connection.received, connection.unsent, connection.stays) == (b"else", b"", True)


async def test_bytes_and_the_end_that_came_while_the_task_was_busy_are_found(
    reactor: Reactor, pairs: list[Pair]
) -> None:
    pair = pairs[0]
    connection = reactor.add(pair.here.fileno(), echo)
    pair.there.send(b"else")
    await trio.testing.wait_all_tasks_blocked()  # the edge has been and gone
    pair.there.send(b" and more")
    pair.there.shutdown(socket.SHUT_WR)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(20):
        await reactor.rest(connection)
        assert connection.received == b"else and more"
        await reactor.rest(connection)
        assert connection.received == b""


async def test_bytes_with_the_end_behind_them_are_left_to_the_task(reactor: Reactor, pairs: list[Pair]) -> None:
    pair = pairs[0]
    connection = reactor.add(pair.here.fileno(), echo)
    pair.there.send(b"echo")
    pair.there.shutdown(socket.SHUT_WR)
    with trio.fail_after(20):
        await reactor.rest(connection)
        assert connection.received == b"echo"
        await reactor.rest(connection)
        assert connection.received == b""


async def test_an_answer_that_is_not_taken_whole_is_left_to_the_task(reactor: Reactor, pairs: list[Pair]) -> None:
    pair, answer = pairs[0], bytes(10_000_000)
    connection = reactor.add(pair.here.fileno(), lambda _: (answer, False))
    pair.there.send(b"x")
    with trio.fail_after(20):
        await reactor.rest(connection)
    taken = await heard(pair)
    assert 0 < len(connection.unsent) < len(answer)
    assert len(taken) <= len(answer) - len(connection.unsent)
    assert (connection.received, connection.stays) == (b"", False)


async def test_what_fails_is_raised_in_its_own_task_and_the_others_go_on(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    bad, good = reactor.add(pairs[0].here.fileno(), fail), reactor.add(pairs[1].here.fileno(), echo)
    nursery.start_soon(reactor.rest, good)
    await trio.testing.wait_all_tasks_blocked()
    pairs[0].there.send(b"x")
    with pytest.raises(ZeroDivisionError):
        await reactor.rest(bad)
    pairs[1].there.send(b"echo")
    assert await heard(pairs[1]) == b"echo"


async def test_a_number_that_was_given_to_another_connection_stays_with_it(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    former = Connection(pairs[0].here.fileno(), echo)
    now = reactor.add(pairs[0].here.fileno(), echo)
    reactor.remove(former)
    nursery.start_soon(reactor.rest, now)
    await trio.testing.wait_all_tasks_blocked()
    pairs[0].there.send(b"echo")
    assert await heard(pairs[0]) == b"echo"
    reactor.remove(now)
    reactor.remove(now)


async def test_what_comes_for_a_socket_that_another_process_still_has_is_overlooked(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    gone, other = reactor.add(pairs[0].here.fileno(), echo), reactor.add(pairs[1].here.fileno(), echo)
    nursery.start_soon(reactor.rest, other)
    await trio.testing.wait_all_tasks_blocked()
    with pairs[0].here.dup():
        pairs[0].here.close()
        reactor.remove(gone)
        pairs[0].there.send(b"echo")
        await trio.testing.wait_all_tasks_blocked()
        pairs[1].there.send(b"echo")
        assert await heard(pairs[1]) == b"echo"


async def test_a_removed_connection_is_not_read(reactor: Reactor, pairs: list[Pair]) -> None:
    reactor.remove(reactor.add(pairs[0].here.fileno(), echo))
    pairs[0].there.send(b"echo")
    await trio.testing.wait_all_tasks_blocked()
    assert pairs[0].here.recv(10) == b"echo"


class Steps(trio.abc.Instrument):
    """How many answers were given in each step of a task that gave any: between two of them the loop gets its turn."""

    def __init__(self) -> None:
        self.answers = 0
        self.sizes: list[int] = []

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        if self.answers:
            self.sizes.append(self.answers)
        self.answers = 0


async def test_the_loop_gets_its_turn_after_a_bounded_number_of_answers(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    steps = Steps()

    def count(received: bytes) -> tuple[bytes, bool]:
        steps.answers += 1
        return received, True

    for pair in pairs:
        nursery.start_soon(reactor.rest, reactor.add(pair.here.fileno(), count))
    await trio.testing.wait_all_tasks_blocked()
    for pair in pairs:
        pair.there.send(b"x")
    trio.lowlevel.add_instrument(steps)
    with trio.fail_after(20):
        while sum(steps.sizes) < len(pairs):
            await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(steps)
    assert max(steps.sizes) == ANSWERS_A_TURN_MAX


async def test_a_client_that_always_has_more_to_ask_does_not_keep_the_others_waiting(
    reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    order: list[int] = []

    def greedy(number: int) -> None:
        def respond(received: bytes) -> tuple[bytes, bool]:
            order.append(number)
            pairs[number].there.send(b"again")
            return b"", True

        nursery.start_soon(reactor.rest, reactor.add(pairs[number].here.fileno(), respond))

    for number in range(4):
        greedy(number)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(4):
        pairs[number].there.send(b"first")
    while len(order) < 400:
        await trio.lowlevel.checkpoint()
    assert all(sorted(order[at : at + 4]) == [0, 1, 2, 3] for at in range(0, 400, 4))


async def test_who_says_nothing_for_too_long_is_woken_with_nothing(
    autojump_clock: trio.testing.MockClock, reactor: Reactor, pairs: list[Pair], nursery: trio.Nursery
) -> None:
    ended: dict[int, float] = {}

    async def rest(number: int) -> None:
        connection = reactor.add(pairs[number].here.fileno(), echo)
        await trio.sleep(number)
        await reactor.rest(connection)
        assert connection.received == b""
        ended[number] = trio.current_time()

    begun = trio.current_time()
    for number in range(3):
        nursery.start_soon(rest, number)
    await trio.sleep(50)
    pairs[1].there.send(b"echo")  # which begins its time anew
    await trio.sleep(100)
    assert {number: at - begun for number, at in ended.items()} == {
        0: IDLE_SECONDS_MAX,
        1: 50 + IDLE_SECONDS_MAX,
        2: 2 + IDLE_SECONDS_MAX,
    }
