"""Large writes and queries at once: everybody gets their turn. Counted in answers, not in seconds."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from segmentd.domain.segments import SegmentDefinition
from segmentd.http import reactor
from segmentd.http.reactor import INTERLUDE_SECONDS
from tests.http.conftest import start
from tests.http.test_wire import connected, one_answer, post
from tests.http.traffic import plain_query
from tests.http.world import World, event
from tests.runtime.world import opened

WRITERS = 4
REQUESTS_A_WRITER = 10
EVENTS_A_REQUEST = 500


def upload(writer: int, number: int) -> bytes:
    first = (writer * REQUESTS_A_WRITER + number) * EVENTS_A_REQUEST
    events = [event(identifiers={"fs_user_id": f"u-{first + at}"}) for at in range(EVENTS_A_REQUEST)]
    return post(json.dumps(events).encode())


@pytest.mark.parametrize("interlude_seconds", [INTERLUDE_SECONDS, 0.0])
async def test_queries_get_their_turn_while_large_requests_are_committed(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, interlude_seconds: float
) -> None:
    monkeypatch.setattr(reactor, "INTERLUDE_SECONDS", interlude_seconds)
    written = 0
    asked_until: list[int] = []
    async with opened(tmp_path) as store:
        world = World(store=store)
        await world.catalog.put("gold", SegmentDefinition("audience_1", "", {}), None)
        server = await start(world, nursery)

        async def write(writer: int) -> None:
            nonlocal written
            async with connected(server.port) as stream:
                for number in range(REQUESTS_A_WRITER):
                    await stream.send_all(upload(writer, number))
                    assert (await one_answer(stream))[0] == 202
                    written += 1

        async def ask() -> None:
            async with connected(server.port) as stream:
                while written < WRITERS * REQUESTS_A_WRITER:
                    await stream.send_all(plain_query())
                    assert (await one_answer(stream))[0] == 200
                    asked_until.append(written)

        async with trio.open_nursery() as clients:
            clients.start_soon(ask)
            for writer in range(WRITERS):
                clients.start_soon(write, writer)
        server.stop.set()
        await server.stopped.wait()
        store.interludes()  # whoever answered in them is gone, and what is still to be merged goes on
        assert store.stats().identifiers == WRITERS * REQUESTS_A_WRITER * EVENTS_A_REQUEST
    passed = [after - before for before, after in pairwise(asked_until)]
    assert len(asked_until) >= WRITERS * REQUESTS_A_WRITER, "fewer queries than large requests"
    assert max(passed) <= 2 * WRITERS, "a query waited while others were served more than once"
