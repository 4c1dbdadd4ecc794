"""Both kinds of store behind one face, for tests that hold for either: one embedded, or two nodes on one cluster.

The stores run in a thread of their own for as long as a world is open, so a property may have hundreds of examples;
each gets names that no other has (`World.fresh`).
"""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import trio

from segmentd.cluster.catalog import ClusterCatalog
from segmentd.cluster.lists import ClusterLists
from segmentd.cluster.members import ClusterMembers
from segmentd.domain.membership import is_qualified
from segmentd.runtime.catalog import Catalog
from segmentd.runtime.liststore import ListStore, WholeList
from segmentd.runtime.seam import AwaitedReader, MembershipStore, Wanted
from segmentd.runtime.store import LocalStore
from segmentd.settings import LimitsSettings, RuntimeSettings, StorageSettings
from segmentd.storage.importscan import swept_key
from tests.awaited import AwaitedFake
from tests.cluster.cluster import Cluster
from tests.cluster.stores import members_of, running
from tests.imports.awaited import AwaitedLists
from tests.runtime.world import MAP_BYTES, Unobserved, data_folder

T = TypeVar("T")
SEGMENTS_MAX = 1_000
ANSWER_SECONDS_MAX = 60.0
"""Turns a hang into a failure."""


class Node(NamedTuple):
    """What one process of segmentd has above the seam."""

    store: MembershipStore
    reader: AwaitedReader
    lists: ListStore
    catalog: Catalog
    members: Callable[[str], Awaitable[list[tuple[bytes, int]]]]
    """All members of an audience with their `v`, in key order."""

    async def versions(self, key: bytes, *audiences: str) -> list[int | None]:
        found = await self.reader.fetch(Wanted(lookups={key: set(audiences)}))
        return [found.lookups[key][audience] for audience in audiences]

    async def size(self, audience: str) -> int:
        return (await self.reader.fetch(Wanted(sizes={audience}))).sizes[audience]

    async def whole_list(self, audience: str, keys: list[bytes], as_of_ms: int, taken_ms: int, folder: Path) -> bool:
        """Have these be the members as of T, as `Importer` does it; False if a later list or deletion has spoken."""
        if await self.lists.floor(audience) > 2 * as_of_ms:
            return False
        number = await self.lists.numbered(audience)
        staged, output = folder / "staged", folder / "outdated"
        staged.write_bytes(b"".join(sorted(key[1:] + b"\n" for key in keys)))
        listed = WholeList(audience, number, as_of_ms, taken_ms, 0, staged)
        await self.lists.qualify(listed, sorted(keys), dry_run=False)
        await self.lists.raise_floor(number, as_of_ms)
        await self.lists.compare(listed, output)
        outdated = [swept_key(line) for line in output.read_bytes().splitlines(keepends=True)]
        if outdated:
            await self.lists.disqualify(listed, outdated)
        return True


class World:
    """An open world. nodes: what is done on one must be seen on every other."""

    def __init__(self, nodes: list[Node], token: trio.lowlevel.TrioToken) -> None:
        self.nodes = nodes
        self._token = token
        self._examples = count()

    def fresh(self) -> str:
        """A suffix for the names of one example."""
        return f"-{next(self._examples)}"

    def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` gives, in the stores' loop."""

        async def bounded() -> T:
            with trio.fail_after(ANSWER_SECONDS_MAX):
                return await act()

        return trio.from_thread.run(bounded, trio_token=self._token)


@contextmanager
def opened(kind: str, cluster: Cluster | None, folder: Path) -> Iterator[World]:
    """kind: embedded or cluster."""
    ready = threading.Event()
    end = trio.Event()
    worlds: list[World] = []
    failures: list[BaseException] = []

    async def live() -> None:
        nodes = _embedded(folder) if cluster is None or kind == "embedded" else _two_nodes(cluster, folder)
        async with nodes as held:
            worlds.append(World(held, trio.lowlevel.current_trio_token()))
            ready.set()
            await end.wait()

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as failure:  # noqa: BLE001  # raised in the test's own thread
            failures.append(failure)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        if worlds:
            yield worlds[0]
    finally:
        if worlds and thread.is_alive():
            trio.from_thread.run_sync(end.set, trio_token=worlds[0]._token)
        thread.join()
        for failure in failures:
            raise failure


@asynccontextmanager
async def _embedded(path: Path) -> AsyncIterator[list[Node]]:
    storage = StorageSettings(
        path=str(path), journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, journal_bytes_max=MAP_BYTES // 2
    )
    folder = data_folder(path)
    runtime = RuntimeSettings()
    store = LocalStore(folder, storage=storage, runtime=runtime, limits=LimitsSettings(), observer=Unobserved())
    store.recover()
    store.kind_numbers(["fs_user_id"])
    catalog = Catalog(store.committer, segments_max=SEGMENTS_MAX, retry_after_seconds=1)
    lists = AwaitedLists(store)

    async def members(audience: str) -> list[tuple[bytes, int]]:
        return sorted((key, v) for key, v in lists._members(audience) if is_qualified(v))

    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        nursery.start_soon(catalog.run)
        yield [Node(store, AwaitedFake(store), lists, catalog, members)]
        nursery.cancel_scope.cancel()
    store.close_environments()
    folder.close()


@asynccontextmanager
async def _two_nodes(cluster: Cluster, folder: Path) -> AsyncIterator[list[Node]]:
    async with running(cluster, folder / "a") as first, running(cluster, folder / "b") as second:
        nodes = []
        for store in (first, second):
            all_members = members_of(store)

            async def members(audience: str, of: ClusterMembers = all_members) -> list[tuple[bytes, int]]:
                return [member async for member in of.all(audience, patient=_at_once)]

            catalog = ClusterCatalog(store, segments_max=SEGMENTS_MAX, retry_after_seconds=1)
            nodes.append(Node(store, store, ClusterLists(store, all_members), cast("Catalog", catalog), members))
        yield nodes


async def _at_once(act: Callable[[], Awaitable[None]]) -> None:
    await act()
