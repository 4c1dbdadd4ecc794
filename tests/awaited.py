"""A store that has to be waited for: what a plain reader knows, each answer after a moment in which others run."""

from collections.abc import Callable
from typing import Protocol

import trio

from segmentd.domain.members import MembersPage
from segmentd.graphql.context import MembershipReader
from segmentd.runtime.seam import Found, Wanted


class PageReader(Protocol):
    """Members of an audience, of a plain reader."""

    def members(self, audience: str, after: bytes, first: int) -> MembersPage: ...


class AwaitedFake:
    """Implements `segmentd.runtime.seam.AwaitedReader`."""

    def __init__(self, store: MembershipReader, members: PageReader | None = None) -> None:
        self._store = store
        self._members = members
        self.fetched: list[Wanted] = []
        """What was asked for, call by call."""
        self.refusal: Exception | None = None
        self.meanwhile: Callable[[], None] | None = None
        """What others do while a call is waited for."""

    async def fetch(self, wanted: Wanted) -> Found:
        self.fetched.append(wanted)
        await trio.lowlevel.checkpoint()
        if self.meanwhile is not None:
            self.meanwhile()
        if self.refusal is not None:
            raise self.refusal
        lookups: dict[bytes, dict[str, int | None]] = {}
        for key, audiences in wanted.lookups.items():
            listed = sorted(audiences)
            lookups[key] = dict(zip(listed, self._store.lookup(key, listed), strict=True))
        pages: dict[tuple[str, bytes, int], MembersPage] = {}
        for page in wanted.pages:
            assert self._members is not None
            pages[page] = self._members.members(*page)
        return Found(lookups, {audience: self._store.size(audience) for audience in wanted.sizes}, pages)
