"""Followers of a simulated server: the stores of the real ones, in this process, reading its files as it writes them.

Each shows exactly what is published: everything acknowledged, of a request all or nothing, and nothing that a crash
could take back. They look when the owner is looked at, by chance, so that what one has not read is cut by then; and
at the very moment of a publication, when the owner itself does not show it yet.
"""

import os
from collections.abc import Callable
from pathlib import Path

import trio

from segmentd.runtime.following import FollowingStore
from segmentd.runtime.store import LocalStore
from segmentd.settings import Settings
from segmentd.storage.visible import Visible
from tests.simulation.machine import Machine

FOLLOWERS_MAX = 2


class Followers:
    """Those of one life; none in some."""

    def __init__(self, machine: Machine, settings: Settings) -> None:
        self._chance = machine.chance
        self._settings = settings
        self._stores: list[FollowingStore] = []
        self._pages: list[Visible] = []
        self._descriptor = -1
        self.count = machine.chance.pick((0, 1, FOLLOWERS_MAX))
        self.published: Callable[[], None] = lambda: None
        """Called when something was just published, and the owner does not show it yet."""

    def page(self) -> Visible | None:
        """For the owner's store."""
        if not self.count:
            return None
        page, self._descriptor = Visible.create()
        self._pages.append(page)
        return page

    def begin(self, store: LocalStore) -> None:
        """Follow a store that has recovered."""
        self._stores = [self._opened() for _ in range(self.count)]
        store.on_new_generation = self._reopen if self.count else None
        publish = store.publication.publish

        def published(record: int) -> None:
            publish(record)
            if self.count and self._chance.one_in(4):
                self.published()

        store.publication.publish = published  # type: ignore[method-assign]

    def looking(self) -> list[FollowingStore]:
        """Those that look now; by chance one begins anew before it does."""
        for number, store in enumerate(self._stores):
            if self._chance.one_in(20):
                store.close()
                self._stores[number] = self._opened()
        return [store for store in self._stores if not self._chance.one_in(3)]

    def end(self) -> None:
        """The life is over, and so are its followers."""
        self._stores.clear()
        for page in self._pages:
            page.close()
        self._pages.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _opened(self) -> FollowingStore:
        page = Visible.of(self._descriptor)
        self._pages.append(page)
        settings = self._settings
        store = FollowingStore(Path(settings.storage.path), page, storage=settings.storage, limits=settings.limits)
        store.open()
        return store

    async def _reopen(self, generation: str) -> None:
        for store in list(self._stores):
            await trio.sleep(self._chance.delay())
            if store in self._stores:
                store.reopen(generation)
