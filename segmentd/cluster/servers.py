"""The servers of the cluster: links to them, and who owns which slot now.

An actor: `run` keeps the links up and looks at the layout again and again, at once where somebody says that it is
wrong (`suspect`). Many servers are asked, so that one that is frozen or behind does not decide alone.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from segmentd.cluster.layout import EMPTY, Layout, Owner, Told, is_view, layout_of, told_by
from segmentd.cluster.link import Address, Link, LinkDownError, LinkSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_ASKED_MAX: Final = 9
"""Servers whose view is asked for; with more servers, some by chance."""
_SEEDS_MIN: Final = 2
_SHOWN_CHARS: Final = 200
_VIEW_SECONDS_MAX: Final = 0.5
_LOOK_SECONDS_MIN: Final = 0.05


class Servers:
    """Plain calls on the loop's thread."""

    def __init__(self, seeds: Sequence[Address], settings: LinkSettings, *, look_seconds: float) -> None:
        """seeds: where the cluster is asked for first. look_seconds: between two looks at the layout."""
        self._seeds = tuple(seeds)
        self._settings = settings
        self._look_seconds = look_seconds
        self._links: dict[tuple[Address, str], tuple[Link, trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None
        self._suspected = trio.Event()
        self._looked = trio.Event()
        self._told = ""
        self._latest: Told | None = None
        self.layout: Layout = EMPTY
        self.on_layout: list[Callable[[Layout], None]] = []
        """Called with each layout that differs from the one before."""

    def owner_of(self, slot: int) -> Owner | None:
        """The primary of a slot, None where nobody claims it."""
        return self.layout.owners.get(slot)

    def link(self, address: Address, use: str) -> Link:
        """The link to a server for one use (each use has its own, so that none waits behind another)."""
        held = self._links.get((address, use))
        if held is None:
            assert self._nursery is not None  # noqa: S101  # actors call while `run` runs
            held = (Link(address, self._settings), trio.CancelScope())
            self._links[address, use] = held
            self._nursery.start_soon(self._keep, *held)
        return held[0]

    def problems(self) -> list[str]:
        """Why there is no connection, for each server that there is none to."""
        links = (link for (_, use), (link, _) in self._links.items() if use == "layout")
        return [f"{link.address}: {link.problem}" for link in links if link.problem]

    def suspect(self) -> None:
        """Something says that the layout has changed: look at once."""
        self._suspected.set()

    async def look(self) -> None:
        """Wait for a look that begins after this call."""
        self.suspect()
        before = self._looked
        await before.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                self._suspected = trio.Event()
                await self._look()
                self._looked.set()
                self._looked = trio.Event()
                await trio.sleep(_LOOK_SECONDS_MIN)
                with trio.move_on_after(self._look_seconds):
                    await self._suspected.wait()

    async def _look(self) -> None:
        known = self.layout.addresses()
        asked = random.sample(sorted(known), min(len(known), _ASKED_MAX - _SEEDS_MIN))  # no secret
        # Always some of those that were configured: after a restart all others may have addresses that nobody knows.
        seeds = [seed for seed in self._seeds if seed not in asked]
        asked += random.sample(seeds, min(len(seeds), _ASKED_MAX - len(asked)))
        views: list[tuple[Address, str]] = []
        async with trio.open_nursery() as nursery:
            for address in asked:
                nursery.start_soon(self._view, address, views)
        if not views:
            return
        told = told_by(views)
        if told != self._latest:
            self._latest = told
            layout = layout_of(told)
            if layout != self.layout:
                self._take(layout)

    async def _view(self, address: Address, views: list[tuple[Address, str]]) -> None:
        with trio.move_on_after(_VIEW_SECONDS_MAX):
            try:
                (answer,) = await self.link(address, "layout").call([(b"CLUSTER NODES",)])
            except LinkDownError:
                return
            text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
            if is_view(address, text):
                views.append((address, text))
            elif text != self._told:
                self._told = text
                log.warning("a server does not tell of the cluster", server=str(address), answer=text[:_SHOWN_CHARS])

    def _take(self, layout: Layout) -> None:
        if not self.layout.owners:
            log.info("cluster found", servers=len(layout.addresses()), slots=len(layout.owners))
        self.layout = layout
        used = layout.addresses() | set(self._seeds)
        for (address, use), (_, scope) in list(self._links.items()):
            if address not in used:
                scope.cancel()
                del self._links[address, use]
        for told in self.on_layout:
            told(layout)

    async def _keep(self, link: Link, scope: trio.CancelScope) -> None:
        with scope:
            await link.run()
