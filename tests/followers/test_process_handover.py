"""When the owner gives a connection away, and what it does with one that comes back."""

import os
import socket
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from segmentd.followers.ingest import Ingest
from segmentd.followers.messages import Handed
from segmentd.http.elsewhere import LocalRoom, Take
from segmentd.http.server import open_listener, serve
from segmentd.telemetry import Telemetry
from tests.followers.processes import Connection, Reply, names, query, request
from tests.http.traffic import plain_event
from tests.http.world import World

ANSWER = b'{"data":{"customer":{"audiences":{"edges":[]}}}}'


class OtherProcess:
    """Stands in for a follower: takes what it is given, if it is willing."""

    def __init__(self) -> None:
        self.room = LocalRoom(100)
        self.willing = True
        self.full = False
        self.given: list[tuple[int, bytes, int]] = []
        self.was_given = trio.Event()
        self.take: Take

    def wants(self, hops: int) -> bool:
        return self.willing and hops < 4

    def give(self, descriptor: int, begun: bytes, hops: int) -> bool:
        if self.full:
            return False
        self.given.append((os.dup(descriptor), begun, hops))
        self.was_given.set()
        return True

    async def next(self) -> tuple[int, bytes, int]:
        """What it is given next."""
        await self.was_given.wait()
        self.was_given = trio.Event()
        return self.given.pop()

    def take_with(self, take: Take) -> None:
        self.take = take

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()

    async def scrape(self) -> None:
        await trio.lowlevel.checkpoint()

    def status(self) -> dict[str, int]:
        return {"ready": 1, "wanted": 1}


class Owner:
    """A server in this process, beside `other`."""

    def __init__(self) -> None:
        self.other = OtherProcess()
        self.world = World()
        self.stop = trio.Event()
        self.listener = open_listener("127.0.0.1", 0, 100)
        self.port = int(self.listener.getsockname()[1])

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        serving = partial(serve, shutdown=self.stop.wait, elsewhere=self.other, task_status=task_status)
        await serving(self.world.app, self.listener, self.world.settings.server)

    async def asked(self, connection: Connection, sent: bytes) -> Reply:
        return await trio.to_thread.run_sync(connection.ask, sent)


@pytest.fixture
async def owner(nursery: trio.Nursery) -> Owner:
    made = Owner()
    await nursery.start(made.run)
    return made


@pytest.fixture
def connection(owner: Owner) -> Iterator[Connection]:
    with Connection(owner.port) as made:
        yield made
    owner.stop.set()


def keyed(sent: bytes) -> bytes:
    return sent.replace(b"test-private-key", b"test-private")


async def test_a_query_goes_elsewhere_with_every_byte_that_was_sent(owner: Owner, connection: Connection) -> None:
    sent = keyed(query("a")) + keyed(query("b"))[:30]
    connection.send(sent)
    descriptor, begun, hops = await owner.other.next()
    with socket.socket(fileno=descriptor) as taken:
        assert (begun, hops) == (sent, 1)
        taken.sendall(b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
        assert names(await trio.to_thread.run_sync(connection.reply)) == []


async def test_what_is_no_query_stays(owner: Owner, connection: Connection) -> None:
    assert (await owner.asked(connection, plain_event(1))).status == 202
    assert (await owner.asked(connection, keyed(request("GET", "/v3/segments")))).status == 200
    assert owner.other.given == []


async def test_a_query_is_answered_here_where_nobody_can_take_it(owner: Owner, connection: Connection) -> None:
    owner.other.full = True
    assert names(await owner.asked(connection, keyed(query("a")))) == []
    owner.other.full, owner.other.willing = False, False
    assert names(await owner.asked(connection, keyed(query("a")))) == []
    assert owner.other.given == []


async def test_what_comes_back_is_answered_here_even_while_queries_go_elsewhere(
    owner: Owner, connection: Connection
) -> None:
    connection.send(keyed(query("a")))
    for hops in (2, 4):
        descriptor, begun, _ = await owner.other.next()
        owner.other.take(Handed(begun, hops), descriptor)
        assert names(await trio.to_thread.run_sync(connection.reply)) == []
        # The next one may go again, until it has gone too often.
        connection.send(keyed(query("b")))
    assert names(await trio.to_thread.run_sync(connection.reply)) == []
    assert owner.other.given == []


def test_events_that_take_more_than_their_share_of_the_loop_make_it_busy_for_a_while() -> None:
    now = [100.0]
    ingest = Ingest(Telemetry(), clock=lambda: now[0])
    committed = partial(ingest.committed, journal_bytes=1, seconds=0.001)
    for _ in range(1_000):  # 100 events a second
        committed(requests=1, changes=1)
        now[0] += 0.01
    assert not ingest.is_busy()
    for _ in range(100):  # 250,000 events a second
        committed(requests=5, changes=2_500)
        now[0] += 0.01
    assert ingest.is_busy()
    now[0] += 1.0
    assert not ingest.is_busy()
