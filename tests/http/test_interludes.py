"""Long work is cut into slices, and whoever can be answered at once is answered between two of them."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from segmentd.domain.events import SLICE_EVENTS
from segmentd.http.busypolling import BusyPolling
from segmentd.http.exchange import Answer, Request
from segmentd.http.reactor import INTERLUDE_SECONDS, Reactor
from segmentd.logs import RequestContext, current_request
from segmentd.runtime.interludes import Interludes
from tests.http.traffic import QUERY
from tests.http.world import PUBLIC, World, event, header, read

LONG_ENOUGH_SECONDS = 2 * INTERLUDE_SECONDS


class Client:
    """A connection of the reactor; `asks` and `hears` never wait."""

    def __init__(self, reactor: Reactor, respond: Callable[[bytes], tuple[bytes, bool]]) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.there.setblocking(False)
        self.reactor = reactor
        self.connection = reactor.add(self.here.fileno(), respond)

    def asks(self, said: bytes) -> None:
        self.there.send(said)

    def hears(self) -> bytes | None:
        try:
            return self.there.recv(1_000)
        except BlockingIOError:
            return None


@pytest.fixture
async def reactor(nursery: trio.Nursery) -> Reactor:
    made = Reactor(75.0, BusyPolling(0.0))
    nursery.start_soon(made.run)
    return made


@pytest.fixture
def asked() -> list[bytes]:
    return []


@pytest.fixture
def clients(reactor: Reactor, nursery: trio.Nursery, asked: list[bytes]) -> Iterator[list[Client]]:
    def echo(received: bytes) -> tuple[bytes, bool]:
        asked.append(received)
        return received, True

    made = [Client(reactor, echo) for _ in range(3)]
    for client in made:
        nursery.start_soon(reactor.rest, client.connection)
    yield made
    for client in made:
        client.here.close()
        client.there.close()


async def test_whoever_asks_in_the_middle_of_long_work_is_answered_before_it_goes_on(
    reactor: Reactor, clients: list[Client], mock_clock: trio.testing.MockClock
) -> None:
    await trio.testing.wait_all_tasks_blocked()
    for number, client in enumerate(clients):
        mock_clock.jump(LONG_ENOUGH_SECONDS)
        client.asks(b"%d" % number)
        reactor.interlude()
        assert client.hears() == b"%d" % number
    # What was answered is not answered again when the loop has its own turn.
    await trio.testing.wait_all_tasks_blocked()
    assert [client.hears() for client in clients] == [None] * 3


async def test_the_work_goes_on_however_much_is_asked(
    reactor: Reactor, clients: list[Client], mock_clock: trio.testing.MockClock
) -> None:
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(LONG_ENOUGH_SECONDS)
    reactor.interlude()
    clients[0].asks(b"too soon")
    for _ in range(10):
        reactor.interlude()
    assert clients[0].hears() is None
    await trio.testing.wait_all_tasks_blocked()
    assert clients[0].hears() == b"too soon"


async def test_no_turn_begins_in_the_middle_of_a_turn(
    reactor: Reactor, clients: list[Client], asked: list[bytes], mock_clock: trio.testing.MockClock
) -> None:
    inside = 0

    def works(received: bytes) -> tuple[bytes, bool]:
        nonlocal inside
        before = list(asked)
        clients[0].asks(b"meanwhile")
        mock_clock.jump(LONG_ENOUGH_SECONDS)
        reactor.interlude()
        assert asked == before
        inside += 1
        return received, True

    clients[1].connection.respond = works
    await trio.testing.wait_all_tasks_blocked()
    clients[1].asks(b"first")
    mock_clock.jump(LONG_ENOUGH_SECONDS)
    reactor.interlude()
    assert (clients[1].hears(), inside) == (b"first", 1)
    await trio.testing.wait_all_tasks_blocked()
    assert clients[0].hears() == b"meanwhile"


def query() -> Request:
    body = json.dumps({"query": QUERY, "variables": {"userId": "u-17", "audiences": ["gold"]}}).encode()
    return Request("POST", "/v3/graphql", "", {**PUBLIC, "content-type": "application/json"}, body, road="lane")


class Meanwhile:
    """Asks a query in each interlude of a world."""

    def __init__(self, world: World) -> None:
        self.answers: list[Any] = []
        self.contexts: list[RequestContext | None] = []
        self._world = world
        world.app.interludes.fill(self)

    def __call__(self) -> None:
        edge = self._world.app.edge
        answer = edge.answer_at_once(query(), edge.find("/v3/graphql"), lambda _: None)
        assert isinstance(answer, Answer)
        self.answers.append(read(answer))
        self.contexts.append(current_request.get())


def numbered(count: int) -> list[dict[str, Any]]:
    return [event(identifiers={"fs_user_id": f"u-{number}"}) for number in range(count)]


async def upload(world: World, events: list[dict[str, Any]]) -> Answer:
    headers = {**PUBLIC, "x-request-id": "the-upload"}
    return await world.ask("POST", "/v3/events", headers, json.dumps(events).encode())


@pytest.mark.parametrize("count", [1, SLICE_EVENTS, SLICE_EVENTS + 1, 5 * SLICE_EVENTS])
async def test_queries_are_answered_between_the_slices_of_a_large_upload(world: World, count: int) -> None:
    meanwhile = Meanwhile(world)
    answer = await upload(world, numbered(count))
    assert (answer.status, header(answer, "x-request-id")) == (202, "the-upload")
    assert len(meanwhile.answers) == (count - 1) // SLICE_EVENTS
    assert all("errors" not in found for found in meanwhile.answers)
    assert len(world.store.memberships) == count
    # What the upload writes into the log still bears its own name.
    assert {context and context.request_id for context in meanwhile.contexts} <= {"the-upload"}


async def test_queries_are_answered_while_the_mistakes_of_an_upload_are_named(world: World) -> None:
    meanwhile = Meanwhile(world)
    answer = await upload(world, [*numbered(2 * SLICE_EVENTS), event(action="?")])
    assert answer.status == 400
    assert [invalid["event"] for invalid in read(answer)["detail"]["invalids"]] == [2 * SLICE_EVENTS]
    assert len(meanwhile.answers) >= 2
    assert world.store.memberships == {}


def test_nothing_happens_where_nobody_is_to_be_answered() -> None:
    called: list[int] = []
    interludes = Interludes()
    interludes()
    interludes.fill(lambda: called.append(1))
    interludes()
    interludes.fill()
    interludes()
    assert called == [1]
