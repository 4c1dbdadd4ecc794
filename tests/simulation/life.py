"""One life of the server: put together as the service does it, until it is stopped or crashes.

At a crash the disk says what it leaves. What the dying life does from that moment on, it does to files that nobody will
look at again, and nobody is told of it.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from segmentd.domain.events import EventRules
from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.runtime.catalog import Catalog
from segmentd.runtime.forgetnotes import FolderNotes
from segmentd.runtime.forgetting import Forgetting
from segmentd.runtime.imports import Imports
from segmentd.runtime.store import LocalStore
from segmentd.settings import (
    IdentifierSettings,
    ImportsSettings,
    LimitsSettings,
    PassthroughSettings,
    RuntimeSettings,
    Settings,
    StorageSettings,
)
from segmentd.storage.folder import DataFolder
from tests.simulation.chance import CRASHES, Chance
from tests.simulation.following import Followers
from tests.simulation.machine import Machine

MAP_BYTES = 16 * 1024 * 1024
IDENTIFIER = "fs_user_id"
START_SECONDS_MAX = 600
LIFE_SECONDS_MAX = 50_000
"""Virtual. Longer than all that can be waited for together; a life that is longer hangs."""


class Unobserved:
    """Nobody looks at the metrics."""

    def committed(self, *, requests: int, changes: int, journal_bytes: int, seconds: float) -> None:
        """Nothing."""

    def commit_failed(self) -> None:
        """Nothing."""

    def checkpointed(self, *, changes: int, seconds: float) -> None:
        """Nothing."""

    def checkpoint_failed(self) -> None:
        """Nothing."""


def settings_by_chance(chance: Chance, folder: Path) -> Settings:
    """Small bounds, so that few requests reach all of them."""
    pick = chance.pick
    return Settings(
        passthrough=PassthroughSettings(enabled=True),
        identifiers={IDENTIFIER: IdentifierSettings(confidence="high")},
        runtime=RuntimeSettings(
            shards=pick((1, 2, 3)),
            shard_inbox_messages_max=pick((1, 2, 64)),
            commit_queue_requests_max=pick((2, 8, 64)),
            commit_queue_changes_max=pick((4, 100)),
            group_changes_max=pick((1, 4, 100)),
            slice_changes_max=pick((1, 2, 100)),
        ),
        storage=StorageSettings(
            path=str(folder),
            journal_map_bytes=MAP_BYTES,
            index_map_bytes=MAP_BYTES,
            paced_journal_bytes=pick((4096, 1 << 20)),
            checkpoint_journal_bytes=pick((4096, 1 << 20)),
            checkpoint_seconds_max=pick((0.02, 0.3, 5.0)),
            checkpoint_batch_changes_max=pick((1, 3, 1000)),
        ),
        imports=ImportsSettings(slice_changes=pick((1, 2, 10)), uploads_running_max=pick((1, 3))),
        limits=LimitsSettings(audiences_max=10),
    )


class Life:
    """Open it, `live` it once."""

    def __init__(self, machine: Machine, folder: Path, next_folder: Path, crashed: Callable[[], None]) -> None:
        """next_folder: where a crash leaves what is left; it must not exist. crashed: called at the very moment."""
        self.machine = machine
        self.folder = folder
        self._next_folder = next_folder
        self._crashed = crashed
        self._scope = trio.CancelScope()
        self.dead = False
        """Whether it has crashed."""
        self.settings = settings_by_chance(machine.chance, folder)
        self.followers = Followers(machine, self.settings)
        machine.disk.begin(folder)
        machine.disk.on_crash = self.crash

    def crash(self) -> None:
        """Now."""
        if self.dead:
            return
        self.dead = True
        chance = self.machine.chance
        kind = chance.pick(CRASHES)
        chance.counted[kind] += 1
        chance.armed = False
        self.machine.say("crash", kind)
        self.machine.disk.image(self._next_folder, kind)
        self._crashed()
        self._scope.cancel()

    async def live(self, act: Callable[["Life"], Awaitable[None]]) -> None:
        """Start, do `act`, stop in order; or crash on the way. Raises StorageError if it cannot start."""
        try:
            with trio.fail_after(LIFE_SECONDS_MAX), self._scope:
                async with trio.open_nursery() as children:
                    self.machine.children.nursery = children
                    with self._open_folder() as opened:
                        await self._serve(opened, act)
                    children.cancel_scope.cancel()
        finally:
            self.machine.chance.armed = False
            self.followers.end()
            self.machine.environments.close_all()

    def _open_folder(self) -> DataFolder:
        return DataFolder(self.folder, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)

    async def _serve(self, folder: DataFolder, act: Callable[["Life"], Awaitable[None]]) -> None:
        """As `segmentd.service` does, with `act` in the place of the edge."""
        self._put_together(folder)
        async with trio.open_nursery() as stores:
            async with trio.open_nursery() as catalogs:
                async with trio.open_nursery() as watchers:
                    with trio.fail_after(START_SECONDS_MAX):
                        await self._start(stores, catalogs, watchers)
                    await act(self)
                    self.store.committer.hurry()
                    watchers.cancel_scope.cancel()
                self.catalog.close()
            self.store.close()
        self.store.close_environments()

    def _put_together(self, folder: DataFolder) -> None:
        settings = self.settings
        self.store = LocalStore(
            folder,
            storage=settings.storage,
            runtime=settings.runtime,
            limits=settings.limits,
            observer=Unobserved(),
            visible=self.followers.page(),
        )
        number = self.store.kind_numbers([IDENTIFIER])[IDENTIFIER]
        self.schema = IdentifierSchema([IdentifierKind(IDENTIFIER, Confidence.HIGH, number)])
        self._prefix = bytes([number])
        self.rules = EventRules(self.schema)
        self.catalog = Catalog(self.store.committer, segments_max=10, retry_after_seconds=1)
        self.imports = Imports(settings, self.schema, self.store.lists, clock=self.machine.now)
        self.forgetting = Forgetting(
            self.store, FolderNotes(self.folder), scrub_seconds_min=0.5, jobs_kept_max=100, retry_after_seconds=1
        )
        kinds = {kind.name: kind.number for kind in self.schema.kinds.values()}
        self.reader = self.store.reader(kinds, settings.members)

    async def _start(self, stores: trio.Nursery, catalogs: trio.Nursery, watchers: trio.Nursery) -> None:
        recovered = await trio.to_thread.run_sync(self.store.recover)
        self.catalog.load(recovered.segments.values())
        await self.imports.load()
        await self.forgetting.load()
        await stores.start(self.store.run)
        catalogs.start_soon(self.catalog.run)
        watchers.start_soon(self.imports.run)
        watchers.start_soon(self.forgetting.run)
        self.followers.begin(self.store)

    def key(self, who: str) -> bytes:
        """The key of an identifier."""
        return self._prefix + who.encode()
