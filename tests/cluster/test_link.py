"""A link outlives whatever it is connected to: what is no answer costs the connection, and the next one is tried."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from segmentd.cluster.link import Address, Link, LinkDownError, LinkSettings
from tests.cluster.cluster import Cluster

SETTINGS = LinkSettings(None, None, None, connect_seconds_max=1.0, answer_seconds_max=0.3)
HELLO = b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n"
HELLO += b"$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
Serve = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def linked(serve: Serve) -> AsyncIterator[Link]:
    """A link to a server that says whatever the test has it say."""

    async def guarded(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, guarded, 0)
        port = listeners[0].socket.getsockname()[1]
        link = Link(Address("127.0.0.1", port), SETTINGS)
        nursery.start_soon(link.run)
        yield link
        nursery.cancel_scope.cancel()


def answering(*answers: bytes) -> Serve:
    """Answers one request after the other so, on each connection; then nothing more."""

    async def serve(stream: trio.SocketStream) -> None:
        for answer in answers:
            await stream.receive_some()
            await stream.send_all(answer)
        while await stream.receive_some():
            pass

    return serve


@pytest.mark.parametrize(
    "answers",
    [
        [b"no protocol at all\r\n"],
        [b"-NOAUTH Authentication required.\r\n"],
        [b"-ERR unknown command 'HELLO'\r\n"],
        [b"*2\r\n:1\r\n:2\r\n"],
        [b"%1\r\n$5\r\nproto\r\n:9\r\n"],
        [b"\x00\xff" * 100],
        [HELLO, b"?what\r\n"],
        [HELLO, b"$999\r\nbeginning"],
        [HELLO, b":notanumber\r\n"],
    ],
    ids=lambda answers: repr(answers[-1][:20]),
)
async def test_what_is_no_answer_costs_the_connection_and_nothing_else(answers: list[bytes]) -> None:
    async with linked(answering(*answers)) as link:
        for _ in range(3):
            try:
                (answer,) = await link.call([(b"PING",)])
            except LinkDownError:
                continue
            assert isinstance(answer, Exception)


async def test_a_server_that_closes_at_once_or_in_the_middle_is_tried_again() -> None:
    served = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal served
        served += 1
        if served == 1:
            return
        await stream.receive_some()
        await stream.send_all(HELLO)
        await stream.receive_some()
        if served == 2:
            await stream.send_all(b"+PON")
            return
        await stream.send_all(b"+PONG\r\n")
        await stream.receive_some()

    async with linked(serve) as link:
        with pytest.raises(LinkDownError):
            await link.call([(b"PING",)])
        assert await link.call([(b"PING",)]) == [b"PONG"]
        assert (served, link.problem) == (3, "")


async def test_an_answer_that_comes_too_late_is_not_taken_for_another() -> None:
    slow = True

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal slow
        await stream.receive_some()
        await stream.send_all(HELLO)
        while await stream.receive_some():
            if slow:
                slow = False
                await trio.sleep(2 * SETTINGS.answer_seconds_max)
                await stream.send_all(b"+late\r\n")
            else:
                await stream.send_all(b"+right\r\n")

    async with linked(serve) as link:
        with pytest.raises(LinkDownError, match="no answer within"):
            await link.call([(b"GET", b"a")])
        for _ in range(5):
            assert await link.call([(b"GET", b"b")]) == [b"right"]
            await trio.sleep(SETTINGS.answer_seconds_max / 2)


async def test_whoever_gives_up_waiting_leaves_the_answers_of_others_in_order(cluster: Cluster) -> None:
    link = Link(Address("127.0.0.1", cluster.masters()[0].port), SETTINGS._replace(answer_seconds_max=10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        for number in range(200):
            with trio.move_on_after(0 if number % 2 else 0.0002):
                await link.call([(b"ECHO", b"given up")] * 3)
            assert await link.call([(b"ECHO", b"%d" % number)]) == [b"%d" % number]
        nursery.cancel_scope.cancel()


async def test_why_there_is_no_connection_is_told() -> None:
    async with linked(answering(b"-WRONGPASS invalid username-password pair\r\n")) as link:
        with pytest.raises(LinkDownError, match="invalid username"):
            await link.call([(b"PING",)])
    link = Link(Address("127.0.0.1", 1), SETTINGS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        with pytest.raises(LinkDownError, match=r"127\.0\.0\.1:1: no connection \(.+\)"):
            await link.call([(b"PING",)])
        nursery.cancel_scope.cancel()
