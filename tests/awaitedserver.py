"""`python -m tests.awaitedserver serve ...`: the program over a store that has to be waited for.

It is the embedded one, asked through the awaited part of the seam alone: no query finds it in this process, imports
compare without the index, and every call comes back after a moment in which others run.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from unittest import mock

import trio

from segmentd import service
from segmentd.cli import main
from segmentd.domain.members import MembersPage
from segmentd.embedded import Embedded
from segmentd.graphql.engine import GraphQLEngine
from segmentd.graphql.gathering import AwaitedReads
from segmentd.http.auth import HashedKey
from segmentd.keyfile import path_in, read
from segmentd.runtime.members import LocalMembers
from segmentd.runtime.seam import AudienceFacts, Export, Found, ImportHistory, Wanted
from segmentd.storage.exporter import Form
from segmentd.storekind import Making, Queries, StoreKind
from tests.awaited import AwaitedFake
from tests.imports.awaited import AwaitedLists

MOMENT_SECONDS = 0.001
EXPORT_BYTES = 1_000


class AwaitedMembers:
    """Implements MembersReader."""

    def __init__(self, members: LocalMembers) -> None:
        self._members = members

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()

    async def audience_ids(self) -> list[str]:
        await self._members.settled()
        return await self._members.audience_ids()

    async def facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        await self._members.settled()
        await trio.sleep(MOMENT_SECONDS)
        return await self._members.facts(audiences)

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        await trio.sleep(MOMENT_SECONDS)
        return await self._members.page(audience, after, first)

    async def export(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> Export:
        return SlowExport(await self._members.export(audience, form, gzip=gzip, identifier=identifier))


class SlowExport:
    """An export in small pieces, none of which is there at once. Implements Export."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.aclose = export.aclose

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._export.chunks():
            for start in range(0, len(chunk), EXPORT_BYTES):
                await trio.lowlevel.checkpoint()
                yield chunk[start : start + EXPORT_BYTES]


class AwaitedReader(AwaitedFake):
    """As the fake, with members of everything that was acknowledged."""

    def __init__(self, kind: Embedded) -> None:
        super().__init__(kind.store, kind.local_members)
        self._settled = kind.local_members.settled

    async def fetch(self, wanted: Wanted) -> Found:
        await trio.sleep(MOMENT_SECONDS)
        if wanted.pages:
            await self._settled()
        return await super().fetch(wanted)


class Keys:
    """The key file, looked at as if it were somewhere else. Implements KeySource."""

    def __init__(self, making: Making) -> None:
        self._path = path_in(making.folder.path)
        self._seen: Mapping[str, HashedKey] | None = None

    async def changed(self) -> Mapping[str, HashedKey] | None:
        await trio.lowlevel.checkpoint()
        found = read(self._path)
        if found == self._seen:
            return None
        self._seen = found
        return found


class Awaited(Embedded):
    """The embedded store as one that has to be waited for."""

    def __init__(self, making: Making) -> None:
        super().__init__(making)
        self.keys = Keys(making)
        self.lists = AwaitedLists(self.store)
        self.members = AwaitedMembers(self.local_members)
        self._reader = AwaitedReader(self)

    def queries(self, imports: ImportHistory) -> Queries:
        settings = self._settings
        page_max = settings.members.page_members_max
        engine = GraphQLEngine(None, self.catalog, self.schema, settings.graphql, members_page_max=page_max)
        return Queries(engine, AwaitedReads(self._reader, imports, settings.runtime.retry_after_seconds))

    async def sizes(self, audiences: Collection[str]) -> Mapping[str, int]:
        return (await self._reader.fetch(Wanted(sizes=set(audiences)))).sizes


async def opened(making: Making) -> StoreKind:
    """In the place of the service's choice."""
    await trio.lowlevel.checkpoint()
    return Awaited(making)


if __name__ == "__main__":
    with mock.patch.object(service, "_opened_kind", opened):
        main()
