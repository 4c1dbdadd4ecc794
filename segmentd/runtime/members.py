"""Reading members from the index of the embedded store, and what is known of audiences from memory.

Pages are read on the loop's thread: a bounded number of rows in one short transaction. Whole audiences are read by a
child process.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import chain

import trio

from segmentd.domain.gate import Gate
from segmentd.domain.members import MembersPage
from segmentd.domain.membership import ts_ms_of
from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.audiences import AudienceTable
from segmentd.runtime.exporting import ChildExport, Exporter
from segmentd.runtime.seam import AudienceFacts
from segmentd.settings import MembersSettings, StorageSettings
from segmentd.storage.exporter import ExporterArguments, Form
from segmentd.storage.index import Index
from segmentd.storage.members import page


class LocalMembers:
    """Implements `segmentd.runtime.seam.MembersReader` and `SettledMembers`."""

    def __init__(
        self,
        index: Index,
        audiences: AudienceTable,
        gate: Gate,
        sizes: Mapping[int, int],
        barrier: Callable[[], Awaitable[object]],
        storage: StorageSettings,
        *,
        kinds: Mapping[str, int],
        settings: MembersSettings,
        retry_after_seconds: int,
    ) -> None:
        """barrier: waits until the index has all that is in the journal. kinds: high-confidence ones, by name."""
        self._index = index
        self._audiences = audiences
        self._gate = gate
        self._sizes = sizes
        self._barrier = barrier
        self._storage = storage
        self._kinds = dict(kinds)
        self._settle_seconds_max = settings.settle_seconds_max
        self._retry_after_seconds = retry_after_seconds
        self._exporter = Exporter(settings.exports_running_max, retry_after_seconds)

    async def settled(self) -> None:
        """See MembersReader."""
        with trio.move_on_after(self._settle_seconds_max):
            await self._barrier()
            return
        raise StoreUnavailable(
            f"The index was not up to date within {self._settle_seconds_max:g} seconds; see the log.",
            self._retry_after_seconds,
        )

    async def audience_ids(self) -> list[str]:
        """See MembersReader."""
        return self._audiences.ids()

    def audiences_count(self) -> int:
        """How many audiences there are."""
        return len(self._audiences)

    async def facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        """See MembersReader."""
        numbered = ((audience, self._audiences.number(audience)) for audience in audiences)
        return [self._facts(audience, number) for audience, number in numbered if number is not None]

    def fresh(self, first: Iterable[str], audiences_max: int) -> list[AudienceFacts]:
        """About at most so many audiences: those of `first`, then the others in the order in which they came up."""
        found: dict[str, int] = {}
        for audience in chain(first, self._audiences.by_number()):
            if len(found) >= audiences_max:
                break
            if (number := self._audiences.number(audience)) is not None:
                found[audience] = number
        return [self._facts(audience, number) for audience, number in found.items()]

    def _facts(self, audience: str, number: int) -> AudienceFacts:
        floor = self._gate.floors.get(number, 0)
        # A floor that is not above that of a deletion before it is the deletion's.
        imported = floor > self._audiences.inherited_floor(audience)
        return AudienceFacts(
            audience,
            self._sizes.get(number, 0),
            self._audiences.freshness.event_ms(number),
            ts_ms_of(floor) if imported else 0,
        )

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See MembersReader."""
        await self.settled()
        return self.members(audience, after, first)

    def members(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See SettledMembers."""
        number = self._audiences.number(audience)
        return MembersPage([], 0, False) if number is None else page(self._index, number, after, first)

    async def export(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> ChildExport:
        """See MembersReader."""
        await self.settled()
        arguments = ExporterArguments(
            path=self._storage.path,
            journal_map_bytes=self._storage.journal_map_bytes,
            index_map_bytes=self._storage.index_map_bytes,
            audience=self._audiences.number(audience),
            audience_id=audience,
            form=form,
            gzip=gzip,
            kinds=self._kinds,
            identifier=identifier,
        )
        return await self._exporter.start(arguments)
