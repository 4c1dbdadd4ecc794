"""The service: opens everything in order, serves, closes in reverse.

The nesting of the nurseries is the shutdown order. SIGTERM or SIGINT → stop accepting and refuse new requests (503) →
answer those in flight → drain the catalog, the committer and the shards → close LMDB → give the folder's lock back.
A SIGKILL at any moment is safe as well: what was acknowledged is in the journal.

What depends on the store is made in one place (`_opened_kind`) and is known here as a `StoreKind` alone.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio

from segmentd import lateness, logs
from segmentd.embedded import Embedded
from segmentd.http.app import App, Insight, build_app
from segmentd.http.auth import Keyring
from segmentd.http.collecting import freeze_what_is_loaded
from segmentd.http.readiness import Readiness
from segmentd.http.server import serve, url_of
from segmentd.http.traffic import counts_of
from segmentd.opening import open_certificates, open_keyring, open_listener, open_owners_traces
from segmentd.runtime.forgetting import Forgetting
from segmentd.runtime.groups import first_of
from segmentd.runtime.history import History
from segmentd.runtime.importbucket import BucketUnusableError
from segmentd.runtime.imports import Imports
from segmentd.runtime.observing import RememberingObserver
from segmentd.settings import Settings
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder
from segmentd.storekind import Making, StartError, StoreKind
from segmentd.supervisor import Supervisor, obey_hangups
from segmentd.telemetry import Telemetry
from segmentd.tracedparts import Traces

# What only one kind of store has in its data folder.
_EMBEDDED_ALONE: Final = "index*/data.mdb"
_CLUSTER_ALONE: Final = "outbox"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code 0. Raises StartError, StorageError."""
    logs.configure(settings.log.format, settings.log.level)
    problem: Exception | None = None
    with open_folder(settings) as folder:
        try:
            trio.run(_serve, settings, folder)
        except* (StartError, StorageError) as group:
            problem = first_of(group)
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


class _Parts(NamedTuple):
    """Everything that is open and waits to be run."""

    kind: StoreKind
    keyring: Keyring
    telemetry: Telemetry
    traces: Traces
    imports: Imports
    forgetting: Forgetting
    readiness: Readiness
    history: History
    app: App


async def _opened_kind(making: Making) -> StoreKind:
    """The store that the settings ask for. Raises StartError, StorageError."""
    _require_folder_of(making.settings)
    if making.settings.store.is_cluster:
        try:
            from segmentd.clustered import open_cluster  # noqa: PLC0415  # needs an extra
        except ImportError as error:
            raise StartError(f'[store] kind = "cluster" needs the extra segmentd[cluster]: {error}') from error
        return await open_cluster(making)
    return Embedded(making)


def _require_folder_of(settings: Settings) -> None:
    """Raises StartError where the data folder belongs to the other kind of store, which would seem to be empty."""
    data = Path(settings.storage.path)
    is_cluster = settings.store.is_cluster
    if any(data.glob(_EMBEDDED_ALONE if is_cluster else _CLUSTER_ALONE)):
        found = "an embedded store" if is_cluster else "a node of a cluster"
        raise StartError(
            f'[storage] path = {data}: is the folder of {found}, and [store] kind = "{settings.store.kind}"; choose'
            " another folder, or move what it holds with `segmentd migrate`"
        )


async def _opened(settings: Settings, folder: DataFolder, listener: socket.socket, nursery: trio.Nursery) -> _Parts:
    """Open the store and put everything together. Raises StartError, StorageError."""
    telemetry = Telemetry()
    traces = open_owners_traces(settings, telemetry)
    observed = RememberingObserver(telemetry)
    kind = await _opened_kind(Making(settings, folder, listener, telemetry, traces, observed, nursery))
    keyring = open_keyring(settings, kind.keys)
    imports = _imports(settings, kind)
    imports.jobs.watch = traces.imports
    forgetting = _forgetting(settings, kind)
    away = (lambda: None) if kind.cluster is None else kind.cluster.away
    readiness = Readiness(settings.runtime.retry_after_seconds, kind.store.failure, away)
    engine, awaited = kind.queries(imports.jobs)
    telemetry.watch_plans(lambda: engine.answered_by_plans)
    telemetry.watch_store(kind.store.stats, lambda: len(kind.catalog.segments))
    telemetry.watch_imports(imports.counts)
    telemetry.watch_audiences(kind.fresh, partial(_audiences_shown, kind), settings.metrics.audiences_max)
    history = _history(settings, telemetry, kind)
    app = build_app(
        settings=settings,
        schema=kind.schema,
        store=kind.store,
        catalog=kind.catalog,
        imports=imports,
        reader=kind.members,
        deletes=kind.store,
        forgetting=forgetting,
        engine=engine,
        keyring=keyring,
        readiness=readiness,
        telemetry=telemetry,
        insight=Insight(kind.store.memberships_of, kind.store.stats, observed, history, kind.cluster),
        elsewhere=kind.elsewhere,
        published=kind.published,
        interludes=kind.interludes,
        awaited=awaited,
        tracing=traces.tracing,
    )
    return _Parts(kind, keyring, telemetry, traces, imports, forgetting, readiness, history, app)


class _Stop:
    """Being told to stop: what it means depends on how far the start has come, and it is never lost in between."""

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self._is_told = False

    def tell(self) -> None:
        """A signal has come."""
        self._is_told = True
        if self._act is not None:
            self._act()

    def means(self, act: Callable[[], None]) -> None:
        """From now on it means this, also if it was told before."""
        self._act = act
        if self._is_told:
            act()


async def _serve(settings: Settings, folder: DataFolder) -> None:
    stop = _Stop()
    async with trio.open_nursery() as signals:
        await signals.start(_watch_signals, stop)
        await _serve_until(stop, settings, folder)
        signals.cancel_scope.cancel()


async def _serve_until(stop: _Stop, settings: Settings, folder: DataFolder) -> None:
    certificates = open_certificates(settings)
    listener = open_listener(settings)
    stopping, supervisor = trio.Event(), Supervisor(os.environ)
    async with trio.open_nursery() as stores:
        parts = await _opened_unless_stopped(settings, folder, listener, stores, stop)
        if parts is None:
            listener.close()
            stores.cancel_scope.cancel()
            return
        kind = parts.kind
        async with trio.open_nursery() as catalogs:
            async with trio.open_nursery() as watchers:
                watchers.start_soon(parts.keyring.watch)
                watchers.start_soon(lateness.sample, parts.telemetry.loop_late)
                stop.means(partial(_drain, parts, stopping, supervisor))
                watchers.start_soon(obey_hangups, supervisor, kind.restart)
                watchers.start_soon(supervisor.run, parts.readiness.reason)
                if certificates is not None:
                    watchers.start_soon(certificates.watch)
                async with trio.open_nursery() as edge:
                    serving = partial(
                        serve, shutdown=stopping.wait, certificates=certificates, elsewhere=kind.elsewhere
                    )
                    await edge.start(partial(serving, parts.app, listener, settings.server))
                    # The promised line.
                    logs.say_on_stdout(f"listening on {url_of(listener, tls=settings.server.is_tls)}")
                    await kind.recover()
                    freeze_what_is_loaded()
                    await parts.keyring.refresh()
                    await parts.imports.load()
                    await parts.forgetting.load()
                    await stores.start(kind.run)
                    catalogs.start_soon(kind.run_catalog)
                    watchers.start_soon(parts.imports.run)
                    watchers.start_soon(parts.forgetting.run)
                    if settings.console.enabled:
                        watchers.start_soon(parts.history.run)
                    watchers.start_soon(kind.watch)
                    parts.readiness.ready()
                watchers.cancel_scope.cancel()
            kind.close_catalog()
        kind.close()
    kind.close_files()
    await parts.traces.aclose()


async def _opened_unless_stopped(
    settings: Settings, folder: DataFolder, listener: socket.socket, stores: trio.Nursery, stop: _Stop
) -> _Parts | None:
    """None: told to stop before the store was open, which may be long where a cluster is waited for."""
    with trio.CancelScope() as opening:
        stop.means(opening.cancel)
        return await _opened(settings, folder, listener, stores)
    return None


async def _watch_signals(stop: _Stop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """One receiver from the first moment to the last: without any a signal ends the process on the spot."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            stop.tell()


def _drain(parts: _Parts, stopping: trio.Event, supervisor: Supervisor) -> None:
    supervisor.stopping()
    parts.readiness.drain()
    parts.kind.hurry()
    stopping.set()


def _audiences_shown(kind: StoreKind) -> Iterator[str]:
    """The audiences that segments show; one that several show comes several times."""
    return (segment.definition.external_audience_id for segment in kind.catalog.segments.values())


def _history(settings: Settings, telemetry: Telemetry, kind: StoreKind) -> History:
    async def sizes() -> dict[str, int]:
        audiences = {
            segment_id: segment.definition.external_audience_id for segment_id, segment in kind.catalog.segments.items()
        }
        found = await kind.sizes(set(audiences.values()))
        return {segment_id: found[audience] for segment_id, audience in audiences.items()}

    return History(settings.console, partial(counts_of, telemetry), sizes)


def _forgetting(settings: Settings, kind: StoreKind) -> Forgetting:
    return Forgetting(
        kind.forgets,
        kind.notes,
        scrub_seconds_min=settings.compliance.scrub_seconds_min,
        jobs_kept_max=settings.compliance.jobs_kept_max,
        retry_after_seconds=settings.runtime.retry_after_seconds,
    )


def _imports(settings: Settings, kind: StoreKind) -> Imports:
    try:
        return Imports(settings, kind.schema, kind.lists, mirror=kind.mirror)
    except BucketUnusableError as error:
        raise StartError(str(error)) from error
