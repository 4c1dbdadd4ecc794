"""The service: opens everything in order, serves, closes in reverse.

The nesting of the nurseries is the shutdown order. SIGTERM or SIGINT → stop accepting and refuse new requests (503) →
answer those in flight → drain the catalog, the committer and the shards → close LMDB → give the folder's lock back.
A SIGKILL at any moment is safe as well: what was acknowledged is in the journal.
"""

import errno
import gc
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio

from segmentd import lateness, logs
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.followers.neighbours import Neighbours
from segmentd.graphql.engine import GraphQLEngine
from segmentd.http.app import App, Insight, build_app
from segmentd.http.auth import Keyring
from segmentd.http.readiness import Readiness
from segmentd.http.server import open_listener, serve, url_of
from segmentd.http.tls import CertificateError, Certificates
from segmentd.http.traffic import counts_of
from segmentd.identifiers import identifier_schema
from segmentd.keyfile import KeyFileError, path_in
from segmentd.runtime.catalog import Catalog
from segmentd.runtime.forgetnotes import FolderNotes
from segmentd.runtime.forgetting import Forgetting
from segmentd.runtime.history import History
from segmentd.runtime.importbucket import BucketUnusableError
from segmentd.runtime.imports import Imports
from segmentd.runtime.observing import RememberingObserver
from segmentd.runtime.seam import AudienceMembers
from segmentd.runtime.store import LocalStore
from segmentd.settings import Settings
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder
from segmentd.supervisor import Supervisor, obey_hangups
from segmentd.telemetry import Telemetry

# The followers of an owner that was killed have its port until they notice, which is within a second.
_LEFTOVER_SECONDS_MAX: Final = 2.0
_LISTEN_AGAIN_SECONDS: Final = 0.05

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class StartError(Exception):
    """The service cannot start; the message names the reason."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code 0. Raises StartError, StorageError."""
    logs.configure(settings.log.format, settings.log.level)
    problem: Exception | None = None
    with open_folder(settings) as folder:
        try:
            trio.run(_serve, settings, folder)
        except* (StartError, StorageError) as group:
            problem = _first(group)
    if problem is not None:
        raise problem
    log.info("stopped")
    return 0


def open_folder(settings: Settings, *, create: bool = True) -> DataFolder:
    """The data folder of the configuration, locked. Raises StorageError."""
    return DataFolder(
        Path(settings.storage.path),
        journal_map_bytes=settings.storage.journal_map_bytes,
        index_map_bytes=settings.storage.index_map_bytes,
        create=create,
    )


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first exception in a group of groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class _Parts(NamedTuple):
    """Everything that is open and waits to be run."""

    keyring: Keyring
    telemetry: Telemetry
    store: LocalStore
    catalog: Catalog
    imports: Imports
    forgetting: Forgetting
    readiness: Readiness
    history: History
    neighbours: Neighbours | None
    app: App


def _opened(settings: Settings, folder: DataFolder, listener: socket.socket) -> _Parts:
    """Open the store and put everything together. Raises StartError, StorageError."""
    keyring = _keyring(settings)
    telemetry = Telemetry()
    observed = RememberingObserver(telemetry)
    neighbours = Neighbours(settings, listener, telemetry, observed) if settings.server.followers else None
    store = LocalStore(
        folder,
        storage=settings.storage,
        runtime=settings.runtime,
        limits=settings.limits,
        observer=observed if neighbours is None else neighbours.ingest,
        visible=None if neighbours is None else neighbours.visible,
    )
    store.on_new_generation = None if neighbours is None else neighbours.reopen
    schema = identifier_schema(settings, store.kind_numbers(list(settings.identifiers)))
    catalog = Catalog(
        store.committer,
        segments_max=settings.limits.segments_max,
        retry_after_seconds=settings.runtime.retry_after_seconds,
    )
    imports = _imports(settings, schema, store)
    reader = store.reader({kind.name: kind.number for kind in schema.kinds.values() if kind.is_high}, settings.members)
    forgetting = _forgetting(settings, store, folder)
    readiness = Readiness(settings.runtime.retry_after_seconds, store.failure)
    engine = _engine(settings, schema, store, catalog, AudienceMembers(reader, imports.jobs))
    telemetry.watch_plans(lambda: engine.answered_by_plans)
    telemetry.watch_store(store.stats, lambda: len(catalog.segments))
    telemetry.watch_imports(imports.counts)
    telemetry.watch_audiences(reader, catalog.audience_ids, settings.metrics.audiences_max)
    history = _history(settings, telemetry, store, catalog)
    app = build_app(
        settings=settings,
        schema=schema,
        store=store,
        catalog=catalog,
        imports=imports,
        reader=reader,
        deletes=store,
        forgetting=forgetting,
        engine=engine,
        keyring=keyring,
        readiness=readiness,
        telemetry=telemetry,
        insight=Insight(store.memberships_of, store.stats, observed, history),
        elsewhere=neighbours,
        published=None if neighbours is None else store.publication,
    )
    return _Parts(keyring, telemetry, store, catalog, imports, forgetting, readiness, history, neighbours, app)


async def _serve(settings: Settings, folder: DataFolder) -> None:
    certificates = _certificates(settings)
    listener = _listener(settings)
    parts = _opened(settings, folder, listener)
    stopping, supervisor = trio.Event(), Supervisor(os.environ)
    restart = None if parts.neighbours is None else parts.neighbours.restart
    async with trio.open_nursery() as stores:
        async with trio.open_nursery() as catalogs:
            async with trio.open_nursery() as watchers:
                watchers.start_soon(parts.keyring.watch)
                watchers.start_soon(lateness.sample, parts.telemetry.loop_late)
                await watchers.start(_watch_signals, parts, stopping, supervisor)
                watchers.start_soon(obey_hangups, supervisor, restart)
                watchers.start_soon(supervisor.run, parts.readiness.reason)
                if certificates is not None:
                    watchers.start_soon(certificates.watch)
                async with trio.open_nursery() as edge:
                    serving = partial(
                        serve, shutdown=stopping.wait, certificates=certificates, elsewhere=parts.neighbours
                    )
                    await edge.start(partial(serving, parts.app, listener, settings.server))
                    # The promised line.
                    logs.say_on_stdout(f"listening on {url_of(listener, tls=settings.server.is_tls)}")
                    await _recover(parts.store, parts.catalog)
                    await parts.imports.load()
                    await parts.forgetting.load()
                    await stores.start(parts.store.run)
                    catalogs.start_soon(parts.catalog.run)
                    watchers.start_soon(parts.imports.run)
                    watchers.start_soon(parts.forgetting.run)
                    if settings.console.enabled:
                        watchers.start_soon(parts.history.run)
                    if parts.neighbours is not None:
                        watchers.start_soon(parts.neighbours.run)
                        watchers.start_soon(parts.neighbours.look_after_readers, parts.store.environments)
                    parts.readiness.ready()
                watchers.cancel_scope.cancel()
            parts.catalog.close()
        parts.store.close()
    parts.store.close_environments()


async def _recover(store: LocalStore, catalog: Catalog) -> None:
    """Load the state, in a thread so that health checks are answered meanwhile."""
    start = trio.current_time()
    recovered = await trio.to_thread.run_sync(store.recover)
    catalog.load(recovered.segments.values())
    # What was loaded stays; looking through all of it again at each collection would stop the loop.
    gc.collect()
    gc.freeze()
    log.info(
        "recovered",
        identifiers=recovered.identifiers,
        audiences=len(recovered.audiences),
        segments=len(catalog.segments),
        journal_records=recovered.journal_records,
        seconds=round(trio.current_time() - start, 3),
    )


async def _watch_signals(
    parts: _Parts,
    stopping: trio.Event,
    supervisor: Supervisor,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            supervisor.stopping()
            parts.readiness.drain()
            parts.store.committer.hurry()
            stopping.set()


def _history(settings: Settings, telemetry: Telemetry, store: LocalStore, catalog: Catalog) -> History:
    async def sizes() -> dict[str, int]:
        segments = catalog.segments.items()
        return {segment_id: store.size(segment.definition.external_audience_id) for segment_id, segment in segments}

    return History(settings.console, partial(counts_of, telemetry), sizes)


def _engine(
    settings: Settings, schema: IdentifierSchema, store: LocalStore, catalog: Catalog, members: AudienceMembers
) -> GraphQLEngine:
    page_max = settings.members.page_members_max
    return GraphQLEngine(store, catalog, schema, settings.graphql, members=members, members_page_max=page_max)


def _forgetting(settings: Settings, store: LocalStore, folder: DataFolder) -> Forgetting:
    return Forgetting(
        store,
        FolderNotes(folder.path),
        scrub_seconds_min=settings.compliance.scrub_seconds_min,
        jobs_kept_max=settings.compliance.jobs_kept_max,
        retry_after_seconds=settings.runtime.retry_after_seconds,
    )


def _imports(settings: Settings, schema: IdentifierSchema, store: LocalStore) -> Imports:
    try:
        return Imports(settings, schema, store.lists)
    except BucketUnusableError as error:
        raise StartError(str(error)) from error


def _listener(settings: Settings) -> socket.socket:
    host, port = settings.server.address
    patience = time.monotonic() + (_LEFTOVER_SECONDS_MAX if settings.server.followers else 0)
    while True:
        try:
            return open_listener(host, port, settings.server.connections_max)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= patience:
                raise StartError(f"[server] listen = {settings.server.listen}: {error.strerror or error}") from error
        time.sleep(_LISTEN_AGAIN_SECONDS)  # nothing else runs yet


def _certificates(settings: Settings) -> Certificates | None:
    if not settings.server.is_tls:
        return None
    try:
        return Certificates(settings.server)
    except CertificateError as error:
        raise StartError(str(error)) from error


def _keyring(settings: Settings) -> Keyring:
    """All keys. Refuses keys that everybody knows on an address that others can reach."""
    try:
        keyring = Keyring(settings.keys, path_in(Path(settings.storage.path)), settings.rates)
    except KeyFileError as error:
        raise StartError(str(error)) from error
    well_known = keyring.development_keys()
    if well_known and not settings.server.is_loopback:
        raise StartError(
            f"[server] listen = {settings.server.listen}: the development keys ({', '.join(well_known)}) are known to"
            " everybody and are served on loopback only; make keys of your own with `segmentd keys create`"
        )
    if not len(keyring):
        log.warning("there are no keys, so every request is refused; make one with `segmentd keys create`")
    return keyring
