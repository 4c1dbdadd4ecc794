"""A real store on a real folder whose commits the test holds back, lets through or makes fail.

When it is closed, it is opened again, and must hold exactly what queries saw last.
"""

import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from segmentd.domain.events import Change
from segmentd.domain.segments import SegmentDefinition
from segmentd.runtime.catalog import Catalog
from segmentd.runtime.store import LocalStore
from segmentd.settings import LimitsSettings, RuntimeSettings, StorageSettings
from segmentd.storage.check import check
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.records import JournalRecord, decode_record

MAP_BYTES = 64 * 1024 * 1024
# Turns a hang into a failure; nothing takes a noticeable part of it.
HANG_SECONDS_MAX = 60.0
Seen = dict[tuple[bytes, str], int]
"""(key, audience id) → v."""


class Observer:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.commits = 0
        self.commits_failed = 0
        self.checkpoints = 0
        self.checkpoints_failed = 0

    def committed(self, **_: object) -> None:
        self.commits += 1

    def commit_failed(self) -> None:
        self.commits_failed += 1

    def checkpointed(self, **_: object) -> None:
        self.checkpoints += 1

    def checkpoint_failed(self) -> None:
        self.checkpoints_failed += 1


class StagedStore(LocalStore):
    """`hold` and `release` commits, or give one an error to fail with."""

    def __init__(self, folder: DataFolder, **arguments: Any) -> None:
        self._may_append = threading.Event()
        self._may_append.set()
        self.errors: deque[Exception] = deque()
        self.records: list[JournalRecord] = []
        """What was appended, in order."""
        super().__init__(folder, **arguments)

    def hold(self) -> None:
        """Let no commit reach the disk until `release`."""
        self._may_append.clear()

    def release(self) -> None:
        self._may_append.set()

    def fold_by_hand(self) -> None:
        """What the checkpointer would do."""
        self.checkpointing.folded_seq = fold(self._journal, self._index, changes_max=1_000_000).seq

    def seen(self) -> Seen:
        """Everything that queries see."""
        keys = [key for shard in self._shards for key, _ in shard.items()]
        return {(key, audience): v for key in keys for audience, v in self.memberships(key).items()}

    def _append(self, blob: bytes) -> int:
        assert self._may_append.wait(HANG_SECONDS_MAX)
        if self.errors:
            raise self.errors.popleft()
        seq = super()._append(blob)
        self.records.append(decode_record(blob))
        return seq


class Stage(msgspec.Struct):
    """A running store with a catalog."""

    store: StagedStore
    catalog: Catalog
    observer: Observer
    folder: DataFolder
    nursery: trio.Nursery

    def start(self, work: Callable[[], Awaitable[object]]) -> "Outcome":
        """Start `work` beside the test; its outcome can be asked for later."""
        outcome = Outcome()
        self.nursery.start_soon(outcome.settle, work)
        return outcome

    def apply(self, *changes: Change) -> "Outcome":
        return self.start(lambda: self.store.apply(list(changes)))

    def put(self, segment_id: str, audience: str, if_match: int | None = None) -> "Outcome":
        return self.start(lambda: self.catalog.put(segment_id, SegmentDefinition(audience), if_match))


class Outcome:
    """What became of something that was started."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.value: Any = None
        self.error: Exception | None = None

    async def settle(self, work: Callable[[], Awaitable[object]]) -> None:
        with self.scope:
            try:
                self.value = await work()
            except Exception as error:  # noqa: BLE001  # the test looks at it
                self.error = error
        self.done.set()

    async def get(self) -> Any:
        """Wait for it; raises what it raised."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.value


def _open(
    folder: DataFolder, observer: Observer, runtime: dict[str, Any], storage: dict[str, Any], limits: dict[str, Any]
) -> StagedStore:
    return StagedStore(
        folder,
        storage=StorageSettings(
            path=str(folder.path), **{"journal_map_bytes": MAP_BYTES, "index_map_bytes": MAP_BYTES, **storage}
        ),
        runtime=RuntimeSettings(**{"shards": 3, **runtime}),
        limits=LimitsSettings(**limits),
        observer=observer,
    )


def _catalog(store: StagedStore, segments_max: int = 10) -> Catalog:
    return Catalog(store.committer, segments_max=segments_max, retry_after_seconds=1)


@asynccontextmanager
async def staged(
    path: Path,
    *,
    runtime: dict[str, Any] | None = None,
    storage: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    checkpointer: bool = False,
) -> AsyncIterator[Stage]:
    """A store in `path`, running. checkpointer: with the child that folds, else nothing is folded but by hand."""
    folder = DataFolder(path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)
    observer = Observer()
    opening = (observer, runtime or {}, storage or {}, limits or {})
    store = _open(folder, *opening)
    catalog = _catalog(store)
    catalog.load(store.recover().segments.values())
    if not checkpointer:
        store.checkpointing.run = trio.sleep_forever  # type: ignore[method-assign]
    with trio.fail_after(HANG_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            async with trio.open_nursery() as commands:
                commands.start_soon(catalog.run)
                async with trio.open_nursery() as work:
                    yield Stage(store, catalog, observer, folder, work)
                    store.release()
                catalog.close()
            store.close()
    _assert_reopened_is_the_same(store, catalog, folder, opening)


def _assert_reopened_is_the_same(
    store: StagedStore, catalog: Catalog, folder: DataFolder, opening: tuple[Observer, Any, Any, Any]
) -> None:
    seen, segments = store.seen(), dict(catalog.segments)
    audiences = {audience for _, audience in seen}
    sizes = {audience: store.size(audience) for audience in audiences}
    assert sizes == {name: sum(1 for (_, of), v in seen.items() if of == name and not v & 1) for name in audiences}
    store.close_environments()
    assert check(folder).differences == []
    again = _open(folder, *opening)
    catalog_again = _catalog(again)
    catalog_again.load(again.recover().segments.values())
    assert again.seen() == seen
    assert {audience: again.size(audience) for audience in audiences} == sizes
    assert dict(catalog_again.segments) == segments
    again.close_environments()
    folder.close()
