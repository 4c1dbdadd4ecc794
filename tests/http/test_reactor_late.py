"""Answers that come later: they are sent without a task, and what came meanwhile is not lost."""

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from segmentd.http.busypolling import BusyPolling
from segmentd.http.exchange import WAITING, Waiting
from segmentd.http.reactor import Reactor
from segmentd.http.resting import Connection

PATIENCE_SECONDS = 20


class Talk:
    """One connection that owes an answer to everything it hears."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.there.setblocking(False)
        self.asked: list[bytes] = []
        self.woken = trio.Event()
        self.connection: Connection = reactor.add(self.here.fileno(), self.respond)

    def respond(self, received: bytes) -> Waiting:
        self.asked.append(received)
        return WAITING

    async def rest(self, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self.reactor.rest(self.connection)
            self.woken.set()

    async def heard(self) -> bytes:
        with trio.fail_after(PATIENCE_SECONDS):
            await trio.lowlevel.wait_readable(self.there)
        return self.there.recv(1_000)

    async def says(self, said: bytes) -> None:
        self.there.send(said)
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def reactor(nursery: trio.Nursery) -> Reactor:
    made = Reactor(75.0, BusyPolling(0.0))
    nursery.start_soon(made.run)
    return made


@pytest.fixture
def talk(reactor: Reactor) -> Iterator[Talk]:
    made = Talk(reactor)
    yield made
    made.here.close()
    made.there.close()


async def test_it_is_sent_and_the_next_request_is_heard_without_the_task(talk: Talk, nursery: trio.Nursery) -> None:
    await nursery.start(talk.rest)
    for number in range(3):
        await talk.says(b"request %d" % number)
        talk.reactor.answer(talk.connection, b"answer %d" % number, stays=True, moves=False)
        assert await talk.heard() == b"answer %d" % number
    assert talk.asked == [b"request 0", b"request 1", b"request 2"]
    assert not talk.woken.is_set()


async def test_nothing_is_read_while_it_is_owed_and_the_task_reads_it_after(talk: Talk, nursery: trio.Nursery) -> None:
    await nursery.start(talk.rest)
    await talk.says(b"first")
    await talk.says(b"second")
    assert talk.asked == [b"first"]
    talk.reactor.answer(talk.connection, b"answer", stays=True, moves=False)
    await talk.woken.wait()
    assert (talk.connection.unsent, talk.connection.stays) == (b"answer", True)
    await talk.reactor.rest(talk.connection)
    assert talk.connection.received == b"second"


@pytest.mark.parametrize(("stays", "moves"), [(False, False), (True, True)])
async def test_an_end_or_a_move_is_for_the_task(talk: Talk, nursery: trio.Nursery, stays: bool, moves: bool) -> None:
    await nursery.start(talk.rest)
    await talk.says(b"request")
    talk.reactor.answer(talk.connection, b"answer", stays=stays, moves=moves)
    await talk.woken.wait()
    sent = b"" if moves else await talk.heard()
    assert (sent + talk.connection.unsent, talk.connection.stays) == (b"answer", stays)


async def test_a_client_that_has_left_is_found_out_by_the_task(talk: Talk, nursery: trio.Nursery) -> None:
    await nursery.start(talk.rest)
    await talk.says(b"request")
    talk.there.close()
    await trio.testing.wait_all_tasks_blocked()
    talk.reactor.answer(talk.connection, b"answer", stays=True, moves=False)
    await talk.woken.wait()
    assert talk.connection.unsent == b"answer"


async def test_nobody_idles_while_an_answer_is_owed(
    talk: Talk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    await nursery.start(talk.rest)
    talk.there.send(b"request")
    while not talk.asked:
        await trio.lowlevel.checkpoint()
    await trio.sleep(1_000)
    assert not talk.woken.is_set()


async def test_what_was_owed_to_a_cancelled_task_is_dropped(talk: Talk, nursery: trio.Nursery) -> None:
    scope = await nursery.start(talk.rest)
    await talk.says(b"request")
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    talk.reactor.answer(talk.connection, b"answer", stays=True, moves=False)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(BlockingIOError):
        talk.there.recv(1_000)
    await nursery.start(talk.rest)
    await talk.says(b"again")
    assert talk.asked == [b"request", b"again"]
