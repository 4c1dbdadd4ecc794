"""What matters on the wire: a real server on a loopback port, real sockets, on both roads in.

Without the lane every request goes through Hypercorn, whose own connections are under test then.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.world import PUBLIC, World, event, settings_with

ONE = json.dumps(event()).encode()
HEAD = b"POST /v3/events HTTP/1.1\r\nhost: x\r\nx-api-key: test-public\r\n"
PATIENCE_SECONDS = 20  # only to end a test that would hang; nothing is measured


@pytest.fixture(params=[False, True], ids=["hypercorn", "lane"])
def lane(request: pytest.FixtureRequest) -> bool:
    taken: bool = request.param
    return taken


@pytest.fixture
def world(lane: bool) -> World:
    return World(settings_with(server=ServerSettings(lane=lane)))


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[trio.SocketStream]:
    with trio.fail_after(PATIENCE_SECONDS):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream


async def everything(stream: trio.SocketStream) -> bytes:
    """All bytes until the server ends the connection."""
    received = b""
    try:
        async for part in stream:
            received += part
    except trio.BrokenResourceError:
        received += b"<reset>"
    return received


async def one_answer(stream: trio.SocketStream) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of the next answer; the connection may stay open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await part_of(stream)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await part_of(stream)
    return int(first.split()[1]), headers, body


async def part_of(stream: trio.SocketStream) -> bytes:
    part = await stream.receive_some()
    assert part, "the connection ended too early"
    return bytes(part)


def post(body: bytes, *more: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in (*more, b"content-length: %d" % len(body))) + b"\r\n" + body


async def test_connection_close_ends_the_connection_after_the_answer(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(post(ONE, b"connection: close"))
        received = await everything(stream)
    assert received.startswith(b"HTTP/1.1 202")
    assert received.endswith(b'"2026-11-23T15:22:40.450Z"}')


async def test_http_1_0_gets_its_answer_and_the_end(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        received = await everything(stream)
    assert b" 200 " in received.split(b"\r\n")[0]
    assert received.endswith(b'{"status":"ok"}')


async def test_a_connection_serves_many_requests(served: Served) -> None:
    async with connected(served.port) as stream:
        for _ in range(20):
            await stream.send_all(post(ONE))
            status, headers, _ = await one_answer(stream)
            assert status == 202
            assert "connection" not in headers


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(post(ONE, b"x-request-id: a") + post(b"", b"x-request-id: b", b"connection: close"))
        received = await everything(stream)
    assert received.index(b"x-request-id: a") < received.index(b"x-request-id: b")
    assert received.count(b"HTTP/1.1 ") == 2


async def test_a_chunked_body_is_read_whole(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(ONE), 10):
            part = ONE[at : at + 10]
            await stream.send_all(b"%x\r\n%b\r\n" % (len(part), part))
        await stream.send_all(b"0\r\n\r\n")
        status, _, _ = await one_answer(stream)
    assert status == 202
    assert len(served.world.store.memberships) == 1


async def test_a_declared_length_over_the_bound_is_refused_before_the_body_comes(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(HEAD + b"content-length: 1048577\r\n\r\n")
        status, headers, body = await one_answer(stream)
    assert status == 413
    assert headers["connection"] == "close"
    assert "1048576 bytes ([limits] events_body_bytes_max)" in json.loads(body)["detail"]["message"]


async def test_a_chunked_body_is_refused_when_it_passes_the_bound(served: Served) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with connected(served.port) as stream:
        await stream.send_all(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk * 17)
        status, _, _ = await one_answer(stream)
    assert status == 413
    assert not served.world.store.memberships


async def test_an_oversized_upload_still_gets_to_read_its_413(served: Served) -> None:
    answer = await served.client.post("/v3/events", headers=PUBLIC, content=b" " * 3_000_000)
    assert answer.status_code == 413
    assert (await served.client.get("/healthz")).status_code == 200


async def test_without_a_key_an_oversized_upload_is_forbidden_and_nothing_else(served: Served) -> None:
    answer = await served.client.post("/v3/events", content=b" " * 3_000_000)
    assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})


async def test_a_body_that_does_not_come_is_408_and_the_connection_ends(lane: bool, nursery: trio.Nursery) -> None:
    server = await start(World(settings_with(server=ServerSettings(lane=lane, request_read_seconds_max=0.2))), nursery)
    async with connected(server.port) as stream:
        await stream.send_all(HEAD + b"content-length: 100\r\n\r\n{")
        received = await everything(stream)
    assert received.startswith(b"HTTP/1.1 408")
    assert b"[server] request_read_seconds_max" in received
    server.stop.set()


async def test_a_client_that_leaves_does_not_stop_what_it_began(served: Served) -> None:
    store = served.world.store
    store.gate = trio.Event()
    async with connected(served.port) as stream:
        await stream.send_all(post(ONE))
        await store.applying.wait()
    await trio.testing.wait_all_tasks_blocked(0.01)
    store.gate.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(store.memberships) == 1
    assert served.world.metric("segmentd_events_total", action="qualify", outcome="accepted") == 1


async def test_a_client_that_resets_with_another_request_pipelined_leaves_nothing_behind(
    world: World, nursery: trio.Nursery
) -> None:
    server = await start(world, nursery)
    world.store.gate = trio.Event()
    async with connected(server.port) as stream:
        await stream.send_all(post(ONE) + post(ONE))
        await world.store.applying.wait()
        # Closing with SO_LINGER 0 resets the connection, so that the answer cannot be sent.
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    world.store.gate.set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    server.stop.set()
    with trio.fail_after(PATIENCE_SECONDS):
        await server.stopped.wait()


async def test_a_client_that_leaves_in_the_middle_of_its_body_changes_nothing(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(HEAD + b"content-length: 1000\r\n\r\n" + ONE)
    assert (await served.client.get("/healthz")).status_code == 200
    assert not served.world.store.memberships
    assert served.world.metric("segmentd_http_refusals_total", route="/v3/events", reason="MALFORMED_BODY") is None


async def test_a_client_that_only_closes_its_sending_side_gets_its_answer(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(post(ONE))
        await stream.send_eof()
        received = await everything(stream)
    assert received.startswith(b"HTTP/1.1 202")


async def test_a_client_that_never_reads_loses_its_connection(lane: bool, nursery: trio.Nursery) -> None:
    world = World(settings_with(server=ServerSettings(lane=lane, request_read_seconds_max=0.3)))
    server = await start(world, nursery)
    socket = trio.socket.socket()
    socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    with trio.fail_after(PATIENCE_SECONDS):
        await socket.connect(("127.0.0.1", server.port))
        stream = trio.SocketStream(socket)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 1_000_000)
    await stream.aclose()
    server.stop.set()
    with trio.fail_after(PATIENCE_SECONDS):
        await server.stopped.wait()


async def test_shutdown_answers_what_is_in_flight_and_ends_idle_connections_at_once(
    world: World, nursery: trio.Nursery
) -> None:
    server = await start(world, nursery)
    world.store.gate = trio.Event()
    async with connected(server.port) as idle, connected(server.port) as busy:
        await idle.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await one_answer(idle))[0] == 200
        await busy.send_all(post(ONE))
        await world.store.applying.wait()
        world.readiness.drain()
        server.stop.set()
        assert await everything(idle) == b""
        assert not server.stopped.is_set()
        world.store.gate.set()
        received = await everything(busy)
        assert received.startswith(b"HTTP/1.1 202")
        assert b"connection: close" in received
        await server.stopped.wait()
    with pytest.raises(OSError, match=r"."):
        await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_a_request_that_comes_while_draining_is_503_and_the_connection_ends(served: Served) -> None:
    async with connected(served.port) as stream:
        served.world.readiness.drain()
        await stream.send_all(post(ONE))
        received = await everything(stream)
    assert received.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in received
    assert b"connection: close" in received
    assert not served.world.store.memberships


async def test_shutdown_does_not_wait_for_a_body_that_has_stopped_coming(nursery: trio.Nursery) -> None:
    server = await start(World(settings_with(server=ServerSettings(shutdown_seconds_max=3_600))), nursery)
    async with connected(server.port) as stuck:
        await stuck.send_all(post(ONE)[:-1])
        await trio.testing.wait_all_tasks_blocked(0.05)
        server.stop.set()
        with trio.fail_after(PATIENCE_SECONDS):
            assert (await everything(stuck)).startswith(b"HTTP/1.1 408")
            await server.stopped.wait()


async def test_shutdown_does_not_wait_for_ever(lane: bool, nursery: trio.Nursery) -> None:
    world = World(settings_with(server=ServerSettings(lane=lane, shutdown_seconds_max=0.2)))
    server = await start(world, nursery)
    world.store.gate = trio.Event()
    async with connected(server.port) as stuck:
        await stuck.send_all(post(ONE))
        await world.store.applying.wait()
        server.stop.set()
        await server.stopped.wait()


async def test_more_connections_than_allowed_wait_their_turn(lane: bool, nursery: trio.Nursery) -> None:
    server = await start(World(settings_with(server=ServerSettings(lane=lane, connections_max=1))), nursery)
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    async with connected(server.port) as first, connected(server.port) as second:
        await first.send_all(request)
        assert (await one_answer(first))[0] == 200
        await second.send_all(request)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.move_on_after(0.2) as waiting:
            await second.receive_some()
        assert waiting.cancelled_caught
        # A client that has left makes room at once, not when its keep-alive time is over.
        await first.aclose()
        assert (await one_answer(second))[0] == 200
    server.stop.set()


async def test_head_is_get_without_the_body(served: Served) -> None:
    got, head = await served.client.get("/healthz"), await served.client.head("/healthz")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_bytes_that_are_no_http_end_only_their_own_connection(served: Served) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"\x00" * 99,
    ):
        async with connected(served.port) as stream:
            await stream.send_all(garbage + b"\r\n\r\n")
            await stream.send_eof()
            assert b"HTTP/1.1 5" not in await everything(stream)
    assert (await served.client.get("/healthz")).status_code == 200


async def test_headers_without_end_are_431(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 40_000)
        assert b" 431 " in (await everything(stream)).split(b"\r\n")[0]


async def test_http_2_is_served_too(served: Served) -> None:
    h2 = pytest.importorskip("h2.connection")
    events = pytest.importorskip("h2.events")
    connection = h2.H2Connection()
    connection.initiate_connection()
    fields = [(":method", "POST"), (":path", "/v3/events"), (":scheme", "http"), (":authority", "x")]
    connection.send_headers(1, [*fields, ("x-api-key", "test-public")])
    connection.send_data(1, ONE, end_stream=True)
    served.world.readiness.drain()  # the answer closes the connection, which HTTP/2 says in another way
    seen: list[object] = []
    async with connected(served.port) as stream:
        await stream.send_all(connection.data_to_send())
        while not any(isinstance(one, events.StreamEnded) for one in seen):
            seen += connection.receive_data(await part_of(stream))
    answer = next(one for one in seen if isinstance(one, events.ResponseReceived))
    assert (b":status", b"503") in answer.headers


async def test_a_whole_address_as_request_target_is_understood(served: Served) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(b"GET http://x.example/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await everything(stream)).startswith(b"HTTP/1.1 200")


async def test_many_clients_at_once_all_get_their_answers(served: Served) -> None:
    async def one(number: int) -> None:
        body = json.dumps(event(identifiers={"fs_user_id": f"u-{number}"})).encode()
        answers.append((await served.client.post("/v3/events", headers=PUBLIC, content=body)).status_code)

    answers: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(one, number)
    assert answers == [202] * 60
    assert len(served.world.store.memberships) == 60


async def test_every_answer_has_a_request_id(served: Served) -> None:
    paths = ("/healthz", "/nowhere", "/v3/segments", "/v3/events")
    answers = [await served.client.get(path) for path in paths]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(paths)
