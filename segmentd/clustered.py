"""The kind of store that is in a cluster, put together; implements `segmentd.storekind.StoreKind`.

Unlike the embedded store it has nothing to load: it is open when the cluster was found, has been asked whether it can
keep the promises, and has what this node sent before. Until then nobody is answered, not even for health.
"""

import time
from collections.abc import Collection, Mapping
from pathlib import Path

import structlog
import trio

from segmentd.cluster.catalog import ClusterCatalog
from segmentd.cluster.connected import ClusterUnusableError
from segmentd.cluster.exports import ClusterExports
from segmentd.cluster.forgetting import ClusterForgets, ClusterNotes
from segmentd.cluster.jobs import ImportsOfAll, RequestsOfAll, node_name
from segmentd.cluster.keys import ClusterKeySource
from segmentd.cluster.lists import ClusterLists
from segmentd.cluster.members import ClusterMembers
from segmentd.cluster.promises import WeakClusterError
from segmentd.cluster.store import ClusterStore
from segmentd.clustermetrics import ClusterMetrics
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.graphql.gathering import AwaitedReads
from segmentd.identifiers import identifier_schema
from segmentd.runtime.groups import first_of
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.seam import ImportHistory, Wanted
from segmentd.storekind import Making, Queries, StartError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def open_cluster(making: Making) -> "Clustered":
    """Find the cluster, however long it takes. Raises StartError, StorageError."""
    settings, started = making.settings, time.monotonic()
    data = Path(settings.storage.path)
    try:
        store = ClusterStore(
            data,
            store=settings.store,
            runtime=settings.runtime,
            limits=settings.limits,
            observer=making.observed,
        )
        node = node_name(data)
    except OSError as error:
        raise StartError(f"[storage] path = {data}: {error.strerror or error}") from error
    try:
        await making.nursery.start(store.run)
    except* (WeakClusterError, ClusterUnusableError) as group:
        raise StartError(str(first_of(group))) from None
    numbers = await store.connected.kind_numbers(list(settings.identifiers))
    log.info("cluster open", node=node, seconds=round(time.monotonic() - started, 3))
    return Clustered(making, store, node, identifier_schema(settings, numbers))


class Clustered:
    """An open store in a cluster, and what belongs to it."""

    def __init__(self, making: Making, store: ClusterStore, node: str, schema: IdentifierSchema) -> None:
        settings = making.settings
        retry_after_seconds = settings.runtime.retry_after_seconds
        self._settings = settings
        self._traces = making.traces
        self.store = store
        self.schema = schema
        self.catalog = ClusterCatalog(
            store, segments_max=settings.limits.segments_max, retry_after_seconds=retry_after_seconds
        )
        self.members = ClusterMembers(
            store.connected.keyspace,
            store.audiences,
            store.registry,
            store.reads,
            exports_of=lambda members: ClusterExports(
                members,
                {kind.name: kind.number for kind in schema.kinds.values() if kind.is_high},
                running_max=settings.members.exports_running_max,
                retry_after_seconds=retry_after_seconds,
            ),
        )
        self.lists = ClusterLists(store, self.members)
        self.mirror = ImportsOfAll(store.registry, node)
        self.notes = ClusterNotes(Path(settings.storage.path), RequestsOfAll(store.registry, node), self.mirror)
        self.forgets = ClusterForgets(store, settings.store.outbox_seconds)
        self.keys = ClusterKeySource(store.registry)
        self.fresh = store.figures
        self.interludes = Interludes()
        self.cluster = store.health
        store.reads.on_read = ClusterMetrics(making.telemetry.registry, store.health.report).read
        self.elsewhere = self.published = self.restart = None
        self.close = store.close

    def queries(self, imports: ImportHistory) -> Queries:
        """See StoreKind."""
        engine = self._traces.engine(
            None,
            self.catalog,
            self.schema,
            self._settings.graphql,
            members_page_max=self._settings.members.page_members_max,
        )
        return Queries(engine, AwaitedReads(self.store, imports, self._settings.runtime.retry_after_seconds))

    async def sizes(self, audiences: Collection[str]) -> Mapping[str, int]:
        """See StoreKind."""
        return (await self.store.fetch(Wanted(sizes=set(audiences)))).sizes

    async def recover(self) -> None:
        """See StoreKind; all is there."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See StoreKind; the store runs since it was opened."""
        task_status.started()
        await trio.lowlevel.checkpoint()

    async def run_catalog(self) -> None:
        """See StoreKind; segments are written by whoever asks."""

    async def watch(self) -> None:
        """See StoreKind."""

    def hurry(self) -> None:
        """See StoreKind; nothing is paced."""

    def close_catalog(self) -> None:
        """See StoreKind."""

    def close_files(self) -> None:
        """See StoreKind; the store closes its outbox itself."""
