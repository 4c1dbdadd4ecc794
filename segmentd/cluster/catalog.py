"""Segments in the cluster: entries of the registry, and a table on every node that follows it.

A write is planned against the newest table and registered on the condition that the segment's entry is still the one
that was planned for; where it is not, it is planned anew. So a revision check and what follows from it cannot be torn
apart, whichever nodes write. Every node shows it within `[store] registry_seconds`, the one that wrote it at once.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgpack

from segmentd.cluster.registry import ConflictError, Entry
from segmentd.cluster.store import ClusterStore
from segmentd.domain.refusals import StoreUnavailable
from segmentd.domain.segments import Segment, SegmentDefinition, SegmentRecord, SegmentTable, segment_of
from segmentd.storage.records import segment_fields, segment_from_fields

SEGMENT: Final = b"s:"
_TRIES_MAX: Final = 50


class ClusterCatalog:
    """Has the calls of `segmentd.runtime.catalog.Catalog`."""

    def __init__(self, store: ClusterStore, *, segments_max: int, retry_after_seconds: int) -> None:
        """After the store has started."""
        self._store = store
        self._table = SegmentTable(segments_max)
        self._retry_after_seconds = retry_after_seconds
        self.segments: Mapping[str, Segment] = self._table.present
        for entry in store.registry.entries(SEGMENT):
            self._take(entry)
        store.registry.on_entry.append(self._take)

    def segment_ids(self) -> list[str]:
        """Sorted ids; shared, not to be changed."""
        return self._table.segment_ids()

    async def put(self, segment_id: str, definition: SegmentDefinition, if_match: int | None) -> tuple[Segment, bool]:
        """See Catalog. Raises RevisionMismatch, LimitReached, StoreUnavailable."""
        before: Segment | None = None

        def plan() -> SegmentRecord | None:
            nonlocal before
            before = self.segments.get(segment_id)
            return self._table.plan_put(segment_id, definition, if_match, _now_ms())

        record = await self._write(segment_id, plan)
        if record is None:
            assert before is not None  # noqa: S101  # nothing to change means that it was there
            return before, False
        return segment_of(record, definition), before is None

    async def delete(self, segment_id: str, if_match: int | None) -> list[str]:
        """See Catalog. Raises SegmentNotFound and what `put` raises."""
        await self._write(segment_id, lambda: self._table.plan_delete(segment_id, if_match, _now_ms()))
        return list(self.segment_ids())

    async def _write(self, segment_id: str, plan: Callable[[], SegmentRecord | None]) -> SegmentRecord | None:
        registry = self._store.registry
        field = SEGMENT + segment_id.encode()
        await registry.refresh()
        for _ in range(_TRIES_MAX):
            record = plan()
            if record is None:
                return None
            try:
                await registry.register([_entry_of(record, expected=registry.rank(field))])
            except ConflictError:
                continue
            return record
        raise StoreUnavailable("Other nodes change this segment all the time.", self._retry_after_seconds)

    def _take(self, entry: Entry) -> None:
        if entry.field.startswith(SEGMENT):
            self._table.fold(segment_from_fields(msgpack.unpackb(entry.payload, use_list=False)))


def segment_entry(record: SegmentRecord) -> Entry:
    """A segment as it is, for a cluster that has it not, or an older revision."""
    return _entry_of(record, expected=None)


def _entry_of(record: SegmentRecord, *, expected: int | None) -> Entry:
    # A deletion keeps the revision that it ends, so it comes between that one and the next.
    rank = 2 * record.revision + (record.definition is None)
    return Entry(SEGMENT + record.segment_id.encode(), rank, msgpack.packb(segment_fields(record)), expected)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
