"""Mailboxes against a model: bounded, in order, drained on closing."""

from collections import deque

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from segmentd.runtime.mailbox import Mailbox, MailboxClosedError, MailboxFullError, Reply

MESSAGES_MAX = 3
WEIGHT_MAX = 10
steps = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 15)),
    st.tuples(st.just("take"), st.none() | st.integers(1, 12)),
    st.tuples(st.just("close"), st.none()),
)


class Model:
    """A mailbox in the simplest way there is; a message is its own weight."""

    def __init__(self) -> None:
        self.held: deque[int] = deque()
        self.closed = False

    def put(self, weight: int) -> type[Exception] | None:
        if self.closed:
            return MailboxClosedError
        full = len(self.held) >= MESSAGES_MAX or sum(self.held) + weight > WEIGHT_MAX
        if self.held and full:
            return MailboxFullError
        self.held.append(weight)
        return None

    def take(self, weight_max: int | None) -> list[int]:
        taken = [self.held.popleft()]
        while self.held and (weight_max is None or sum(taken) + self.held[0] <= weight_max):
            taken.append(self.held.popleft())
        return taken


@given(st.lists(steps, max_size=30))
async def test_a_mailbox_is_bounded_ordered_and_drains_after_closing(listed: list[tuple[str, int | None]]) -> None:
    mailbox: Mailbox[int] = Mailbox(messages_max=MESSAGES_MAX, weight_max=WEIGHT_MAX)
    model = Model()
    for step, number in listed:
        if step == "close":
            mailbox.close()
            model.closed = True
        elif step == "put":
            assert number is not None
            expected = model.put(number)
            try:
                mailbox.put_nowait(number, number)
            except (MailboxFullError, MailboxClosedError) as error:
                outcome: type[Exception] | None = type(error)
            else:
                outcome = None
            assert outcome is expected
        elif model.held:
            assert await mailbox.take(weight_max=number) == model.take(number)
        elif model.closed:
            with pytest.raises(MailboxClosedError):
                await mailbox.take()
        assert (len(mailbox), mailbox.weight) == (len(model.held), sum(model.held))
        assert mailbox.weight <= WEIGHT_MAX or len(mailbox) == 1


async def test_a_reader_waits_for_the_first_message(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(messages_max=3)
    taken: list[list[int]] = []

    async def read() -> None:
        while True:
            taken.append(await mailbox.take())

    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert taken == []
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    await wait_all_tasks_blocked()
    mailbox.put_nowait(3)
    await wait_all_tasks_blocked()
    assert taken == [[1, 2], [3]]
    nursery.cancel_scope.cancel()


async def test_senders_wait_for_room_and_none_is_lost_or_let_in_too_early(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(messages_max=2)
    for number in range(7):
        nursery.start_soon(mailbox.put, number)
    taken: list[int] = []
    while len(taken) < 7:
        await wait_all_tasks_blocked()
        assert len(mailbox) == min(2, 7 - len(taken))
        taken.extend(await mailbox.take())
    assert sorted(taken) == list(range(7))


async def test_a_sender_that_gives_up_puts_nothing(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(messages_max=1)
    mailbox.put_nowait(1)
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancel_when_blocked, scope)
        await mailbox.put(2)
    assert scope.cancelled_caught
    assert await mailbox.take() == [1]
    assert len(mailbox) == 0


async def test_closing_wakes_readers_and_senders(nursery: trio.Nursery) -> None:
    empty: Mailbox[int] = Mailbox(messages_max=1)
    full: Mailbox[int] = Mailbox(messages_max=1)
    full.put_nowait(1)
    nursery.start_soon(_close_when_blocked, empty)
    with pytest.raises(MailboxClosedError):
        await empty.take()
    nursery.start_soon(_close_when_blocked, full)
    with pytest.raises(MailboxClosedError):
        await full.put(2)
    assert await full.take() == [1]


async def test_a_reply_is_given_to_all_who_wait_and_who_come_later(nursery: trio.Nursery) -> None:
    reply: Reply[int] = Reply()
    got: list[int] = []

    async def wait() -> None:
        got.append(await reply.wait())

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert got == []
    reply.set(7)
    assert await reply.wait() == 7
    await wait_all_tasks_blocked()
    assert got == [7, 7]


async def test_a_reply_that_fails_raises_where_it_is_waited_for() -> None:
    reply: Reply[int] = Reply()
    reply.fail(LookupError("x"))
    with pytest.raises(LookupError):
        await reply.wait()


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def _close_when_blocked(mailbox: Mailbox[int]) -> None:
    await wait_all_tasks_blocked()
    mailbox.close()
