"""Imports as a whole: jobs, uploads, the importer, and the places that files are fetched from."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from segmentd.domain.events import EventRules
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.runtime.importbucket import WatchedBucket, s3_client
from segmentd.runtime.importer import Importer
from segmentd.runtime.importfolder import WatchedFolder
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.importmirror import JobMirror
from segmentd.runtime.importsources import Importing
from segmentd.runtime.importuploads import ImportUploads
from segmentd.runtime.liststore import ListStore
from segmentd.runtime.threads import in_thread
from segmentd.settings import ImportsSettings, Settings
from segmentd.storage.importjobs import JobFolder


class ImportCounts(msgspec.Struct):
    """What imports do now, and what they have done since the start."""

    running: int
    waiting: int
    ended: dict[str, int]
    """state → imports."""
    rows: dict[str, int]
    """outcome → rows."""
    source_failures: dict[str, int]
    """`folder` or `bucket`, where it is watched → failures."""


class Imports:
    """Built before anything runs; `load` comes before `run`."""

    def __init__(
        self,
        settings: Settings,
        schema: IdentifierSchema,
        lists: ListStore,
        *,
        mirror: JobMirror | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """mirror: of the jobs of all nodes, None where there is one node. clock: seconds since the epoch.

        Raises BucketUnusableError.
        """
        data, imports = Path(settings.storage.path), settings.imports
        retry_after_seconds = settings.runtime.retry_after_seconds
        self.jobs = ImportJobs(
            JobFolder(data),
            waiting_max=imports.jobs_waiting_max,
            kept_max=imports.jobs_kept_max,
            retry_after_seconds=retry_after_seconds,
            mirror=mirror,
        )
        self.uploads = ImportUploads(
            self.jobs,
            schema,
            imports,
            future_seconds_max=settings.events.future_seconds_max,
            retry_after_seconds=retry_after_seconds,
            clock=clock,
        )
        self.importer = Importer(
            self.jobs,
            lists,
            slice_changes=imports.slice_changes,
            rejected_share_max=imports.rejected_share_max,
        )

        rules = EventRules(
            schema,
            audience_id_chars_max=settings.limits.audience_id_chars_max,
            passthrough_enabled=settings.passthrough.enabled,
        )
        self._sources: list[WatchedFolder | WatchedBucket] = []
        self._importing: dict[str, Importing] = {}
        """Kind of source → what takes its files."""
        if imports.watch_folder:
            self._sources.append(WatchedFolder(imports, self._importing_of("folder", rules, imports)))
        if imports.s3_bucket:
            importing = self._importing_of("bucket", rules, imports)
            self._sources.append(WatchedBucket(s3_client(imports), imports, importing))

    def _importing_of(self, source: str, rules: EventRules, settings: ImportsSettings) -> Importing:
        importing = Importing(self.uploads, self.jobs, rules, tries_max=settings.stager_tries_max)
        self._importing[source] = importing
        return importing

    def counts(self) -> ImportCounts:
        """Numbers for whoever watches."""
        running, waiting = self.jobs.present()
        failures = {source: importing.failures for source, importing in self._importing.items()}
        return ImportCounts(running, waiting, self.jobs.ended_states, self.jobs.ended_rows, failures)

    async def load(self) -> None:
        """Take over the jobs on disk. Raises OSError."""
        await in_thread(self.jobs.load)

    async def run(self) -> None:
        """Until cancelled; what is under way then goes on at the next start."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.importer.run)
            if self.jobs.mirrored is not None:
                nursery.start_soon(self.jobs.mirrored.run)
            for source in self._sources:
                nursery.start_soon(source.run)
