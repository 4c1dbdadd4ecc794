"""Reading members and audiences from the index of the embedded store.

Pages are read on the loop's thread: a bounded number of rows in one short transaction. Whole audiences are read by a
child process.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from segmentd.domain.members import MembersPage
from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.audiences import AudienceTable
from segmentd.runtime.exporting import Export, Exporter
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

    async def facts(self, audiences: Sequence[str]) -> list[AudienceFacts]:
        """See MembersReader."""
        found: list[AudienceFacts] = []
        with self._index.reading() as txn:
            for audience in audiences:
                number = self._audiences.number(audience)
                if number is not None:
                    row = self._index.audience(txn, number)
                    last_event_ms = 0 if row is None else row.last_event_ms
                    found.append(AudienceFacts(audience, self._sizes.get(number, 0), last_event_ms))
        return found

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See MembersReader."""
        await self.settled()
        return self.members(audience, after, first)

    def members(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See SettledMembers."""
        number = self._audiences.number(audience)
        return MembersPage([], 0, False) if number is None else page(self._index, number, after, first)

    async def export(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> Export:
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
