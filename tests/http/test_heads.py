"""Heads that are too slow, too large, or none at all: the connection ends, told in our shape if it can be told."""

import json

import pytest
import trio
import trio.testing

from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.test_wire import HEAD, ONE, connected, everything, one_answer, post
from tests.http.world import World, settings_with

QUICK_SECONDS = 0.2


@pytest.fixture(params=[False, True], ids=["hypercorn", "lane"])
def world(request: pytest.FixtureRequest) -> World:
    return World(settings_with(server=ServerSettings(lane=request.param)))


@pytest.fixture(params=[False, True], ids=["hypercorn", "lane"])
def impatient(request: pytest.FixtureRequest) -> World:
    return World(settings_with(server=ServerSettings(lane=request.param, request_read_seconds_max=QUICK_SECONDS)))


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"GET\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 40_000, 431, "HEAD_TOO_LARGE"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501, "UNKNOWN_TRANSFER_CODING"),
    ],
)
async def test_what_is_no_request_is_refused_in_our_shape_and_counted(
    served: Served, sent: bytes, status: int, reason: str
) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(sent)
        answered, headers, body = await one_answer(stream)
    shown = json.loads(body)
    assert (answered, shown["status"], shown["reason"]) == (status, status, reason)
    assert headers["connection"] == "close"
    assert headers["x-request-id"] == shown["request_id"]
    assert served.world.metric("segmentd_http_refusals_total", route="unmatched", reason=reason) == 1


@pytest.mark.parametrize("begun", [b"P", b"POST /v3/events HTTP/1.1\r\n", HEAD, b"GET /healthz HT"])
async def test_a_head_that_stops_coming_ends_the_connection_in_silence(
    impatient: World, nursery: trio.Nursery, begun: bytes
) -> None:
    server = await start(impatient, nursery)
    async with connected(server.port) as stream:
        await stream.send_all(begun)
        assert await everything(stream) in {b"", b"<reset>"}
    server.stop.set()


async def sent_slowly(stream: trio.SocketStream, data: bytes) -> int:
    """How many bytes could be sent, one by one, before the server had ended the connection."""
    for sent in range(len(data)):
        try:
            await stream.send_all(data[sent : sent + 1])
        except trio.BrokenResourceError:
            return sent
        await trio.sleep(QUICK_SECONDS / 20)
    return len(data)


async def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_another(
    impatient: World, nursery: trio.Nursery
) -> None:
    server = await start(impatient, nursery)
    async with connected(server.port) as stream:
        sent = await sent_slowly(stream, b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 1_000)
    assert sent < 200
    server.stop.set()


async def test_the_time_for_a_head_begins_with_its_first_byte(impatient: World, nursery: trio.Nursery) -> None:
    server = await start(impatient, nursery)
    async with connected(server.port) as stream:
        await trio.sleep(QUICK_SECONDS * 2)
        for request in (post(ONE), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"):
            await stream.send_all(request[:5])
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(request[5:])
            assert (await one_answer(stream))[0] in {200, 202}
            await trio.sleep(QUICK_SECONDS * 2)
    server.stop.set()


async def test_a_second_head_behind_a_request_has_its_time_too(impatient: World, nursery: trio.Nursery) -> None:
    server = await start(impatient, nursery)
    async with connected(server.port) as stream:
        await stream.send_all(post(ONE) + b"GET /heal")
        received = await everything(stream)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 202")
    server.stop.set()


async def test_an_http_2_client_that_leaves_at_once_leaves_nothing_behind(
    impatient: World, nursery: trio.Nursery
) -> None:
    server = await start(impatient, nursery)
    async with connected(server.port) as stream:
        await stream.send_all(b"POST /v3/graphql HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\n\r\n")
        await stream.send_eof()
        assert (await everything(stream)).startswith(b"HTTP/1.1 101")
    server.stop.set()
    await server.stopped.wait()
