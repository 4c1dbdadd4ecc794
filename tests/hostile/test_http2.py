"""HTTP/2 from clients that mean harm: streams, headers, resets and frames are bounded, and others are served on."""

from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
import trio

from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.world import World, settings_with

STREAMS_MAX = 10


@pytest.fixture
async def strict(nursery: trio.Nursery) -> AsyncIterator[Served]:
    settings = ServerSettings(http2_streams_max=STREAMS_MAX, request_read_seconds_max=1)
    server = await start(World(settings_with(server=settings)), nursery)
    async with server.client:
        yield server
        # Whatever one client did, another one is served.
        assert (await server.client.get("/healthz")).status_code == 200
    server.stop.set()
    await server.stopped.wait()


class Client:
    """An HTTP/2 connection with prior knowledge that may say anything."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="latin-1"
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    def ask(self, path: str = "/healthz", *, end: bool = True, more: tuple[tuple[str, str], ...] = ()) -> int:
        """Begin a request; nothing is sent before `flush`."""
        number: int = self.h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "x"), *more]
        self.h2.send_headers(number, head, end_stream=end)
        return number

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            await self.stream.send_all(data)

    async def until(self, *kinds: type[h2.events.Event]) -> h2.events.Event | None:
        """The next event of these kinds; None: the server has closed the connection."""
        with trio.fail_after(30):
            while True:
                for event in self.events:
                    if isinstance(event, kinds):
                        self.events.remove(event)
                        return event
                try:
                    received = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not received:
                    return None
                self.events += self.h2.receive_data(bytes(received))
                await self.flush()


@pytest.fixture
async def client(strict: Served) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", strict.port) as stream:
        made = Client(stream)
        await made.flush()
        yield made


async def test_prior_knowledge_on_the_plain_port_is_served(strict: Served) -> None:
    async with httpx.AsyncClient(base_url=strict.url, http1=False, http2=True) as h2c:
        answer = await h2c.get("/healthz")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


async def test_the_limits_are_told_and_a_stream_too_many_ends_the_connection(client: Client) -> None:
    changed = await client.until(h2.events.RemoteSettingsChanged)
    assert isinstance(changed, h2.events.RemoteSettingsChanged)
    codes = h2.settings.SettingCodes
    assert changed.changed_settings[codes.MAX_CONCURRENT_STREAMS].new_value == STREAMS_MAX
    assert changed.changed_settings[codes.MAX_HEADER_LIST_SIZE].new_value == 32_768
    # The client of this test would obey; an attacker does not.
    client.h2.remote_settings[codes.MAX_CONCURRENT_STREAMS] = 1_000
    client.h2.remote_settings.acknowledge()
    for _ in range(STREAMS_MAX + 1):
        client.ask(end=False)
    await client.flush()
    ended = await client.until(h2.events.ConnectionTerminated)
    assert ended is None or isinstance(ended, h2.events.ConnectionTerminated)


async def test_resets_without_end_end_the_connection(client: Client) -> None:
    sent = 0
    try:
        while sent < 100 * STREAMS_MAX:
            client.h2.reset_stream(client.ask(), h2.errors.ErrorCodes.CANCEL)
            sent += 1
            await client.flush()
        ended = await client.until(h2.events.ConnectionTerminated)
    except trio.BrokenResourceError:
        return  # The server was done before the client.
    assert isinstance(ended, h2.events.ConnectionTerminated)
    assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


async def test_some_resets_are_nothing_bad(client: Client) -> None:
    for _ in range(5 * STREAMS_MAX):
        client.h2.reset_stream(client.ask(), h2.errors.ErrorCodes.CANCEL)
        await client.flush()
    client.ask()
    await client.flush()
    assert isinstance(
        await client.until(h2.events.ResponseReceived, h2.events.ConnectionTerminated), h2.events.ResponseReceived
    )


async def test_a_header_bomb_ends_the_connection(client: Client) -> None:
    # One long field that the table keeps, and then thousands of references to it, of one byte each.
    bomb = (("x-bomb", "b" * 3_000),)
    client.ask(more=bomb * 200)
    await client.flush()
    ended = await client.until(h2.events.ConnectionTerminated, h2.events.ResponseReceived)
    assert not isinstance(ended, h2.events.ResponseReceived)


@pytest.mark.parametrize(
    "frames",
    [
        b"\x00\x00\x00\x04\x01\x00\x00\x00\x01",  # SETTINGS on a stream
        b"\x00\x40\x01\x00\x00\x00\x00\x00\x01" + b"x" * 16_385,  # a frame over the size that is allowed
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # a window of nothing
        b"\x00\x00\x01\x00\x01\x00\x00\x00\x05x",  # DATA on a stream that was never opened
        b"\x00\x00\x05\x09\x04\x00\x00\x00\x01aaaaa",  # CONTINUATION without HEADERS
        b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff",  # HEADERS that are no HPACK
        b"\x00\x00\x04\x03\x00\x00\x00\x00\x07\x00\x00\x00\x08",  # RST_STREAM of an idle stream
    ],
)
async def test_frames_that_break_the_protocol_end_their_connection_alone(client: Client, frames: bytes) -> None:
    await client.stream.send_all(frames)
    ended = await client.until(h2.events.ConnectionTerminated)
    assert ended is None or isinstance(ended, h2.events.ConnectionTerminated)


async def test_a_body_that_comes_after_its_answer_ends_nothing_else(client: Client) -> None:
    # The answer (404) needs no body; what still comes for the stream that is closed must not break the connection.
    number = client.ask("/nowhere", end=False)
    await client.flush()
    for _ in range(20):
        try:
            client.h2.send_data(number, b"x" * 1_000)
        except h2.exceptions.ProtocolError:
            break
        await client.flush()
    client.ask()
    await client.flush()
    assert await client.until(h2.events.ResponseReceived) is not None


async def test_pings_and_settings_without_end_are_answered_or_end_the_connection(client: Client) -> None:
    try:
        for _ in range(2_000):
            client.h2.ping(b"12345678")
            client.h2.update_settings({h2.settings.SettingCodes.ENABLE_PUSH: 0})
            await client.flush()
    except trio.BrokenResourceError:
        pass  # An end is an answer too.
