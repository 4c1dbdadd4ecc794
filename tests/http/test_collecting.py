"""Full garbage collections: when they come, and that the short road leaves nothing for them to find."""

import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
import trio.testing

from segmentd.http.collecting import (
    OBJECTS_A_CONNECTION_MAX,
    OBJECTS_A_CONNECTION_MIN,
    OBJECTS_MIN,
    PAUSE,
    SECONDS_MAX,
    FullCollections,
)
from segmentd.http.lane import Lane
from segmentd.http.resting import Connection
from segmentd.http.streams import BoundedStream
from tests.http.conftest import Served
from tests.http.test_wire import connected
from tests.http.traffic import plain_event, plain_query, replies

CONNECTIONS = 20


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def old_circle() -> weakref.ref[Circle]:
    """Garbage that collections of what is young do not find any more."""
    circle = Circle()
    gc.collect(1)
    gc.collect(1)
    return weakref.ref(circle)


@pytest.fixture
async def collections(nursery: trio.Nursery) -> FullCollections:
    made = FullCollections()
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    return made


async def test_it_comes_when_connections_have_left_enough(collections: FullCollections) -> None:
    garbage = old_circle()
    for _ in range(OBJECTS_MIN // OBJECTS_A_CONNECTION_MAX):
        collections.connection_ended()
    await trio.testing.wait_all_tasks_blocked()
    assert garbage() is not None
    collections.connection_ended()
    await trio.testing.wait_all_tasks_blocked()
    assert garbage() is None


async def test_what_each_leaves_is_learnt_and_the_next_one_waits_for_a_quarter_of_what_lives(
    collections: FullCollections, autojump_clock: trio.testing.MockClock
) -> None:
    living = [[number] for number in range(8 * OBJECTS_MIN)]
    gc.collect()  # so that the next one finds nothing
    for _ in range(OBJECTS_MIN // OBJECTS_A_CONNECTION_MAX + 1):
        collections.connection_ended()
    await trio.sleep(60)
    garbage = old_circle()
    for _ in range(len(living) // 4 // OBJECTS_A_CONNECTION_MIN):
        collections.connection_ended()
    await trio.sleep(60)
    assert garbage() is not None
    for _ in range(len(gc.get_objects()) // OBJECTS_A_CONNECTION_MIN):
        collections.connection_ended()
    await trio.sleep(60)
    assert garbage() is None


async def test_they_take_a_hundredth_of_the_time_at_most(
    collections: FullCollections, autojump_clock: trio.testing.MockClock
) -> None:
    began: list[float] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            began.append(trio.current_time())

    living = [[number] for number in range(OBJECTS_MIN)]
    gc.callbacks.append(note)
    try:
        while len(began) < 3:
            for _ in range(OBJECTS_MIN):
                collections.connection_ended()
            await trio.sleep(0.02)
    finally:
        gc.callbacks.remove(note)
    assert len(living) == OBJECTS_MIN
    # Looking through so many objects takes longer than a tenth of a millisecond on any machine.
    assert min(after - before for before, after in pairwise(began)) > PAUSE * 0.0001


async def test_there_is_one_an_hour_whatever_happens(
    collections: FullCollections, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.sleep(10)
    for _ in range(2):
        garbage = old_circle()
        await trio.sleep(SECONDS_MAX - 500)
        assert garbage() is not None
        await trio.sleep(600)  # and the pause after the one before
        assert garbage() is None


async def test_python_begins_none_of_its_own_meanwhile() -> None:
    before = gc.get_threshold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(FullCollections().run)
        await trio.testing.wait_all_tasks_blocked()
        assert gc.get_threshold()[:2] == before[:2]
        assert gc.get_threshold()[2] > 1_000_000
        nursery.cancel_scope.cancel()
    assert gc.get_threshold() == before


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What a full collection finds after the test, nothing else having looked for it before."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("request_bytes", [plain_query(), plain_event(1)], ids=["query", "event"])
async def test_a_connection_of_the_short_road_leaves_no_circle(
    served: Served, garbage: list[object], request_bytes: bytes
) -> None:
    for _ in range(CONNECTIONS):
        async with connected(served.port) as stream:
            for _ in range(2):
                await stream.send_all(request_bytes)
                assert replies(bytes(await stream.receive_some()))[0].status < 300
    served.stop.set()
    await served.stopped.wait()
    gc.collect()
    assert not [each for each in garbage if isinstance(each, Lane | Connection | BoundedStream)]
