"""Cluster stores for tests: each is a node of its own, with its own connections, registry copy and outbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from segmentd.cluster.exports import ClusterExports
from segmentd.cluster.members import ClusterMembers
from segmentd.cluster.store import ClusterStore
from segmentd.domain.members import MembersPage
from segmentd.runtime.seam import Wanted
from segmentd.settings import LimitsSettings, RuntimeSettings, StoreSettings
from tests.cluster.cluster import Cluster
from tests.runtime.world import Unobserved

PARTITIONS = 6
START_SECONDS_MAX = 60.0
"""Turns a hang into a failure; a store starts within a second."""

RETRY_AFTER_SECONDS = 1


def store_settings(cluster: Cluster, **settings: Any) -> StoreSettings:
    defaults: dict[str, Any] = {
        "kind": "cluster",
        "addresses": tuple(cluster.addresses[:3]),
        "partitions": PARTITIONS,
        "outbox_map_bytes": 64 * 1024 * 1024,
    }
    return StoreSettings(**{**defaults, **settings})


def new_store(
    cluster: Cluster,
    folder: Path,
    *,
    runtime: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> ClusterStore:
    return ClusterStore(
        folder,
        store=store_settings(cluster, **settings),
        runtime=RuntimeSettings(**(runtime or {})),
        limits=LimitsSettings(**(limits or {})),
        observer=Unobserved(),
    )


@asynccontextmanager
async def running(cluster: Cluster, folder: Path, **settings: Any) -> AsyncIterator[ClusterStore]:
    """A store that has started; at the end it is torn down at once, as a crash would."""
    store = new_store(cluster, folder, **settings)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(START_SECONDS_MAX):
            await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def size(store: ClusterStore, audience: str) -> int:
    return (await store.fetch(Wanted(sizes={audience}))).sizes[audience]


async def lookup(store: ClusterStore, key: bytes, audience: str) -> int | None:
    return (await store.fetch(Wanted(lookups={key: {audience}}))).lookups[key][audience]


async def page(store: ClusterStore, audience: str, after: bytes = b"", first: int = 1_000) -> MembersPage:
    return (await store.fetch(Wanted(pages={(audience, after, first)}))).pages[audience, after, first]


async def counts(store: ClusterStore) -> tuple[int, int]:
    """(identifiers, memberships) as the partitions count them."""
    return await store.figures._counted()


def members_of(store: ClusterStore) -> ClusterMembers:
    """The members that a store has, with exports of identifiers of the first kind."""
    return ClusterMembers(
        store.connected.keyspace,
        store.audiences,
        store.registry,
        store.reads,
        exports_of=lambda members: ClusterExports(
            members, {"fs_user_id": 0}, running_max=1, retry_after_seconds=RETRY_AFTER_SECONDS
        ),
    )
