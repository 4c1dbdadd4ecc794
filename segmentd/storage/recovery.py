"""Recovery: load the index, fold what the journal has beyond it. Start-up and crash are the same road."""

from collections.abc import Callable, Iterable
from itertools import islice

import msgspec

from segmentd.domain.freshness import Freshness
from segmentd.domain.segments import SegmentRecord
from segmentd.domain.shard import Word
from segmentd.storage.errors import StorageError
from segmentd.storage.index import AudienceRow, Index
from segmentd.storage.journal import Journal
from segmentd.storage.records import decode_numbered

PROGRESS_IDENTIFIERS = 500_000
"""`progress` is called once in so many identifiers."""


class Recovered(msgspec.Struct):
    """Everything but the memberships, which go straight to their shards."""

    audiences: dict[int, str] = {}
    sizes: dict[int, int] = {}
    freshness: Freshness = msgspec.field(default_factory=Freshness)
    floors: dict[int, int] = {}
    deleted: dict[int, AudienceRow] = {}
    """Rows of the audiences that were deleted; what memory holds of those that are not `swept` must go."""
    forgotten: dict[bytes, int] = {}
    """Marks, see `segmentd.domain.gate`."""
    segments: dict[str, SegmentRecord] = {}
    folded_seq: int = 0
    identifiers: int = 0
    journal_records: int = 0


def recover(
    journal: Journal,
    index: Index,
    *,
    load: Callable[[Iterable[tuple[bytes, bytes]]], int],
    begin_fold: Callable[[Recovered], None],
    fold: Callable[[list[Word]], None],
    forget: Callable[[bytes, int], None],
    progress: Callable[[int], None],
) -> Recovered:
    """Read the state into memory.

    load(rows): takes stored identifiers, (key, packed words), and returns how many. begin_fold: called once, after the
    index, before the journal, with audiences and sizes as of the index. fold(changes): merges journalled changes.
    forget(key, ms): drops an identifier.
    Raises StorageError.
    """
    recovered = Recovered()
    with index.reading() as txn:
        recovered.folded_seq = index.folded_seq(txn)
        for number, row in index.audiences(txn):
            recovered.audiences[number] = row.audience_id
            recovered.sizes[number] = row.size
            recovered.freshness.load(number, row.last_event_ms)
            if row.deleted_ms:
                recovered.deleted[number] = row
            if row.floor:
                recovered.floors[number] = row.floor
        recovered.forgotten = dict(index.forgotten(txn))
        recovered.segments = {record.segment_id: record for record in index.segments(txn)}
        rows = index.memberships(txn)
        while count := load(islice(rows, PROGRESS_IDENTIFIERS)):
            recovered.identifiers += count
            progress(recovered.identifiers)
    begin_fold(recovered)
    for seq, blob in journal.records(recovered.folded_seq):
        expected = recovered.folded_seq + recovered.journal_records + 1
        if seq != expected:
            raise StorageError(f"{journal.path}: record {expected} is missing, the next one is {seq}")
        record = decode_numbered(journal.path, seq, blob)
        recovered.audiences.update(record.audiences)
        recovered.segments.update((segment.segment_id, segment) for segment in record.segments)
        fold(record.changes)
        recovered.freshness.note(record.changes)
        fold(record.imported)
        for number, floor in record.floors:
            recovered.floors[number] = max(floor, recovered.floors.get(number, 0))
        for number, floor, deleted_ms in record.deleted:
            row = AudienceRow(recovered.audiences[number], floor=floor, deleted_ms=deleted_ms)
            recovered.deleted[number] = row
            recovered.floors[number] = max(floor, recovered.floors.get(number, 0))
        for key, forgotten_ms in record.forgotten:
            forget(key, forgotten_ms)
        recovered.journal_records += 1
    journal.continue_after(recovered.folded_seq)
    return recovered
