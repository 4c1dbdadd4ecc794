"""Fixtures: the app with its stand-ins, and the same behind a real Hypercorn on a loopback port."""

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import httpx
import pytest
import trio

from segmentd.http.server import open_listener, serve, url_of
from segmentd.http.tls import Certificates
from tests.http.world import World


class Served(NamedTuple):
    """A world that listens."""

    world: World
    url: str
    client: httpx.AsyncClient
    stop: trio.Event
    stopped: trio.Event

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture
def world() -> World:
    return World()


async def start(world: World, nursery: trio.Nursery, certificates: Certificates | None = None) -> Served:
    """Serve `world` until `stop` is set; `stopped` tells when it has ended."""
    listener = open_listener("127.0.0.1", 0, 100)
    url = url_of(listener, tls=certificates is not None)
    stop, stopped = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        serving = partial(serve, world.app, listener, world.settings.server, shutdown=stop.wait)
        await serving(certificates=certificates, task_status=task_status)
        stopped.set()

    await nursery.start(partial(run))
    return Served(world, url, httpx.AsyncClient(base_url=url, timeout=30), stop, stopped)


@pytest.fixture
async def served(world: World, nursery: trio.Nursery) -> AsyncIterator[Served]:
    server = await start(world, nursery)
    async with server.client:
        yield server
    server.stop.set()
    await server.stopped.wait()
