"""Both roads give the same answers: the lane in front, and Hypercorn with Quart alone."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import trio
import trio.testing

from segmentd.domain.segments import SegmentDefinition
from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.test_wire import connected, everything, one_answer
from tests.http.traffic import Reply, conversation, plain_event, plain_query, replies
from tests.http.world import World, settings_with

CONVERSATIONS = 3_000
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Roads(NamedTuple):
    """Two servers that differ in nothing but the road in."""

    lane: Served
    main: Served


@pytest.fixture(params=[False, True], ids=["embedded", "awaited"])
async def roads(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Roads]:
    both = []
    for lane in (True, False):
        world = World(settings_with(server=ServerSettings(lane=lane)), is_awaited=request.param)
        await world.catalog.put("gold", SegmentDefinition("audience_1", "", {}), None)
        both.append(await start(world, nursery))
    yield Roads(*both)
    for server in both:
        await server.client.aclose()
        server.stop.set()


async def said_to(server: Served, sent: bytes) -> list[Reply]:
    """All answers to `sent`, after which the client closes its sending side."""
    async with connected(server.port) as stream:
        try:
            await stream.send_all(sent)
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass  # The server refused and closed; what it said can still be read.
        return replies((await everything(stream)).removesuffix(b"<reset>"))


def counts(world: World) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every metric of requests and events, but for times."""
    wanted = ("segmentd_http_request_seconds_count", "segmentd_http_refusals_total", "segmentd_events_total")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in world.telemetry.registry.collect()
        for sample in metric.samples
        if sample.name in wanted
    }


@pytest.mark.parametrize("part", range(10))
async def test_generated_conversations_get_the_same_answers_on_both_roads(roads: Roads, part: int) -> None:
    size = CONVERSATIONS // 10
    for number in range(part * size, (part + 1) * size):
        sent = conversation(number)
        answered = [await said_to(server, sent) for server in roads]
        assert answered[0] == answered[1], (number, sent[:2_000])
        assert roads.lane.world.state() == roads.main.world.state(), (number, sent[:2_000])
    assert counts(roads.lane.world) == counts(roads.main.world)


async def test_a_mix_of_requests_may_be_cut_anywhere(roads: Roads) -> None:
    sent = plain_query() + plain_event(11) + plain_query(b"X-Odd:  y \r\n") + GET + plain_event(12)
    whole = await said_to(roads.main, sent)
    assert [reply.status for reply in whole] == [200, 202, 200, 200, 202]
    for cut in range(1, len(sent)):
        async with connected(roads.lane.port) as stream:
            await stream.send_all(sent[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(sent[cut:])
            await stream.send_eof()
            assert replies(await everything(stream)) == whole, cut


async def test_byte_by_byte_is_as_good_as_at_once(roads: Roads) -> None:
    sent = plain_query() + plain_event(1) + GET
    async with connected(roads.lane.port) as stream:
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            await stream.send_all(sent[at : at + 1])
            await trio.testing.wait_all_tasks_blocked()
        await stream.send_eof()
        assert replies(await everything(stream)) == await said_to(roads.main, sent)


async def test_a_large_body_goes_either_way(roads: Roads) -> None:
    large = plain_event(1) + b" " * 300_000
    large = large.replace(
        b"content-length: ", b"content-length: %d\r\nx-was: " % (len(large.partition(b"\r\n\r\n")[2]))
    )
    for extra in (b"", b"x-a: 1\r\nx-a: 2\r\n"):  # the second goes by way of the hand-over
        sent = plain_query() + large.replace(b"x-was", extra + b"x-was") + plain_query()
        for server in roads:
            assert [reply.status for reply in await said_to(server, sent)] == [200, 202, 200]


@pytest.mark.parametrize(
    "smuggled",
    [
        b"content-length: 0\n\nPOST /v3/events HTTP/1.1\r\nx: y",
        b"x: y\r\n content-length: 0",
        b"x: y\rcontent-length: 0",
        b"transfer-encoding: chunked",
        b"transfer-encoding:\tchunked",
        b"Transfer-Encoding: identity, chunked",
        b"transfer_encoding: chunked\r\ntransfer-encoding : chunked",
        b"content-length: 0",
        b"content-length: 6\r\ncontent-length: 0",
    ],
)
async def test_nobody_gets_two_ideas_of_where_a_request_ends(roads: Roads, smuggled: bytes) -> None:
    inner = b"POST /v3/events HTTP/1.1\r\nhost: x\r\nx-api-key: test-public\r\ncontent-length: 0\r\n\r\n"
    for body in (inner, b"0\r\n\r\n" + inner):
        outer = plain_event(1, smuggled + b"\r\n").partition(b"content-length")[0]
        sent = outer + b"content-length: %d\r\n\r\n" % len(body) + body
        assert await said_to(roads.lane, sent) == await said_to(roads.main, sent)


async def test_a_client_that_leaves_while_its_event_is_committed_loses_nothing(roads: Roads) -> None:
    for server in roads:
        store = server.world.store
        store.gate = trio.Event()
        async with connected(server.port) as stream:
            await stream.send_all(plain_event(1))
            await store.applying.wait()
        store.gate.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(store.memberships) == 1


async def test_a_stop_ends_idle_lanes_and_half_heads_at_once_and_busy_ones_after_their_answer(
    roads: Roads,
) -> None:
    server = roads.lane
    server.world.store.gate = trio.Event()
    async with (
        connected(server.port) as fresh,
        connected(server.port) as idle,
        connected(server.port) as half,
        connected(server.port) as busy,
    ):
        await idle.send_all(plain_query())
        assert (await one_answer(idle))[0] == 200
        await half.send_all(plain_query()[:40])
        await busy.send_all(plain_event(1) + plain_event(2))
        await server.world.store.applying.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.stop.set()
        for stream in (fresh, idle, half):
            assert await everything(stream) == b""
        server.world.store.gate.set()
        (reply,) = replies((await everything(busy)).removesuffix(b"<reset>"))
        assert (reply.status, reply.headers[b"connection"]) == (202, b"close")
        await server.stopped.wait()
    assert len(server.world.store.memberships) == 1


async def test_bytes_of_other_protocols_are_handed_over_whole(roads: Roads) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 200
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert await said_to(roads.lane, hello) == await said_to(roads.main, hello)
    for cut in (1, 2, 3, 10, 24, 30):
        async with connected(roads.lane.port) as stream:
            await stream.send_all(preface[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(preface[cut:])
            frame = await stream.receive_some()
            assert frame[3:4] == b"\x04", "the server's own SETTINGS"
