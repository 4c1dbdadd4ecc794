"""What is left of deleted audiences after a start, and until the checkpointer has swept it out of the index."""

from collections.abc import Mapping, Sequence

from segmentd.domain.shard import Shard
from segmentd.runtime.audiences import AudienceTable, Deletion
from segmentd.runtime.checkpointing import Checkpointing
from segmentd.storage.index import AudienceRow, Index


class Deletions:
    """Keeps the deletions of the audience table true. Plain calls on the loop's thread.

    The index may have a deletion that the table has not: its commit failed with an unknown outcome, and it was on disk.
    Nothing is written then until a restart, which takes it over.
    """

    def __init__(self, audiences: AudienceTable) -> None:
        self._audiences = audiences

    def load(
        self,
        stored: Mapping[int, str],
        deleted: Mapping[int, AudienceRow],
        shards: Sequence[Shard],
        checkpointing: Checkpointing,
    ) -> None:
        """Take over audiences and deletions of the store, and drop from memory what the sweep has not come to."""
        self._audiences.load(
            stored,
            [
                Deletion(number, row.audience_id, row.floor, row.deleted_ms, in_index=not row.swept)
                for number, row in deleted.items()
            ],
        )
        unswept = frozenset(number for number, row in deleted.items() if not row.swept)
        checkpointing.unswept.update(unswept)
        if unswept:
            for shard in shards:
                shard.drop([key for key, _ in shard.items()], unswept)

    def swept(self, number: int) -> None:
        """The index holds nothing of this audience any more."""
        self._set_in_index(number, in_index=False)

    def look_again(self, index: Index, checkpointing: Checkpointing) -> None:
        """Another index stands in the place of the old one, maybe without the last steps of the sweep."""
        with index.reading() as txn:
            rows = [(number, row) for number, row in index.audiences(txn) if row.deleted_ms]
        for number, row in rows:
            self._set_in_index(number, in_index=not row.swept)
        checkpointing.unswept.update(number for number, row in rows if not row.swept)

    def _set_in_index(self, number: int, *, in_index: bool) -> None:
        if (deletion := self._audiences.deletions.get(number)) is not None:
            deletion.in_index = in_index
