"""The embedded store as the service runs it: journal and index in the data folder, followers if there are to be any."""

from collections.abc import Collection, Mapping
from pathlib import Path

import structlog
import trio

from segmentd.followers.neighbours import Neighbours
from segmentd.http.auth import KeySource
from segmentd.identifiers import identifier_schema
from segmentd.runtime.catalog import Catalog
from segmentd.runtime.forgetnotes import FolderNotes, ForgetNotes
from segmentd.runtime.importmirror import JobMirror
from segmentd.runtime.liststore import ListStore
from segmentd.runtime.seam import AudienceMembers, ImportHistory, MembersReader
from segmentd.runtime.store import LocalStore
from segmentd.storekind import Making, Queries

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Embedded:
    """Implements `segmentd.storekind.StoreKind`."""

    def __init__(self, making: Making) -> None:
        """Opens the environments. Raises StorageError, OSError."""
        settings = self._settings = making.settings
        self._traces = making.traces
        self._neighbours = self.elsewhere = neighbours = (
            Neighbours(settings, making.listener, making.telemetry, making.observed)
            if settings.server.followers
            else None
        )
        self.store = self.forgets = LocalStore(
            making.folder,
            storage=settings.storage,
            runtime=settings.runtime,
            limits=settings.limits,
            observer=making.observed if neighbours is None else neighbours.ingest,
            visible=None if neighbours is None else neighbours.visible,
            watch=making.traces.commits,
        )
        self.store.on_new_generation = None if neighbours is None else neighbours.reopen
        self.published = None if neighbours is None else self.store.publication
        self.restart = None if neighbours is None else neighbours.restart
        self.schema = identifier_schema(settings, self.store.kind_numbers(list(settings.identifiers)))
        self.catalog = Catalog(
            self.store.committer,
            segments_max=settings.limits.segments_max,
            retry_after_seconds=settings.runtime.retry_after_seconds,
        )
        self.run_catalog, self.close_catalog = self.catalog.run, self.catalog.close
        kinds = {kind.name: kind.number for kind in self.schema.kinds.values() if kind.is_high}
        self.local_members = self.store.reader(kinds, settings.members)
        self.members: MembersReader = self.local_members
        self.fresh = self.local_members
        self.lists: ListStore = self.store.lists
        self.interludes = self.store.interludes
        self.notes: ForgetNotes = FolderNotes(Path(settings.storage.path))
        self.mirror: JobMirror | None = None
        self.cluster = None
        self.keys: KeySource | None = None
        self.run, self.close, self.close_files = self.store.run, self.store.close, self.store.close_environments
        self.hurry = self.store.committer.hurry

    def queries(self, imports: ImportHistory) -> Queries:
        """See StoreKind."""
        engine = self._traces.engine(
            self.store,
            self.catalog,
            self.schema,
            self._settings.graphql,
            members=AudienceMembers(self.local_members, imports),
            members_page_max=self._settings.members.page_members_max,
        )
        return Queries(engine)

    async def sizes(self, audiences: Collection[str]) -> Mapping[str, int]:
        """See StoreKind."""
        return {audience: self.store.size(audience) for audience in audiences}

    async def recover(self) -> None:
        """Load the state, in a thread so that health checks are answered meanwhile."""
        start = trio.current_time()
        recovered = await trio.to_thread.run_sync(self.store.recover)
        self.catalog.load(recovered.segments.values())
        log.info(
            "recovered",
            identifiers=recovered.identifiers,
            audiences=len(recovered.audiences),
            segments=len(self.catalog.segments),
            journal_records=recovered.journal_records,
            seconds=round(trio.current_time() - start, 3),
        )

    async def watch(self) -> None:
        """Have followers, if there are to be any, and look after who reads the files."""
        if self._neighbours is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._neighbours.run)
            nursery.start_soon(self._neighbours.look_after_readers, self.store.environments)
