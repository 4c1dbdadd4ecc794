"""Folding the journal into the index.

One fold takes a bounded number of changes, merges them with what the index holds, and writes the result, the sizes and
the sequence number in one transaction. So a fold is there whole or not at all, and folding a record again is harmless:
merging is idempotent. The core is offered to others again and again, see `segmentd.storage.merging`.
"""

import os

import lmdb
import msgspec

from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS
from segmentd.domain.segments import SegmentRecord
from segmentd.storage.errors import StorageError
from segmentd.storage.failpoints import hit
from segmentd.storage.index import AudienceRow, Index
from segmentd.storage.journal import Journal
from segmentd.storage.merging import Gained, Merging, gather
from segmentd.storage.records import JournalRecord, decode_numbered

_SLICE_CHANGES = 1_000
_V_MASK = (1 << V_BITS) - 1


class Folded(msgspec.Struct, frozen=True):
    """What one fold did."""

    seq: int
    """The index now stands for this journal sequence number."""
    changes: int
    more: bool
    """The journal had more than one fold takes."""


class _Gathered(msgspec.Struct):
    """Journal records, merged in memory."""

    words: dict[bytes, Gained] = {}
    forgotten: dict[bytes, int] = {}
    """key → ms; what `words` has of such a key came after it was forgotten."""
    audiences: dict[int, str] = {}
    floors: dict[int, int] = {}
    deleted: dict[int, int] = {}
    """audience number → ms; its memberships are left to the sweep."""
    last_event_ms: dict[int, int] = {}
    segments: dict[str, SegmentRecord] = {}
    seq: int = 0
    changes: int = 0
    more: bool = False


def fold(journal: Journal, index: Index, *, changes_max: int, seq_max: int | None = None) -> Folded:
    """Fold records until `changes_max` changes are reached (at least one record) or the journal ends.

    seq_max: the last record to be folded, None: the last one of the journal.
    Blocking. Raises StoreFullError, StoreFailureError, StorageError (a record is missing or damaged); then the index is
    as it was.
    """
    with index.reading() as txn:
        start = index.folded_seq(txn)
    gathered = _gather(journal, start, changes_max, seq_max)
    if gathered.seq > start:
        with index.writing() as txn:
            if (present := index.folded_seq(txn)) != start:
                # The checkpointer of a killed owner was still at it. What it folded must not be turned back.
                return Folded(seq=present, changes=0, more=True)
            _write(index, txn, gathered)
            hit("during_checkpoint", parent=True)
    return Folded(seq=max(gathered.seq, start), changes=gathered.changes, more=gathered.more)


def _gather(journal: Journal, start: int, changes_max: int, seq_max: int | None) -> _Gathered:
    gathered = _Gathered(seq=start)
    words = gathered.words
    for seq, blob in journal.records(start):
        if seq_max is not None and seq > seq_max:
            break
        if gathered.changes >= changes_max:
            gathered.more = True
            break
        if seq != gathered.seq + 1:
            raise StorageError(f"{journal.path}: record {gathered.seq + 1} is missing, the next one is {seq}")
        record = decode_numbered(journal.path, seq, blob)
        for changes in (record.changes, record.imported):
            for first in range(0, len(changes), _SLICE_CHANGES):
                os.sched_yield()
                gather(words, changes[first : first + _SLICE_CHANGES])
        _note_times(gathered, record)
        for key, forgotten_ms in record.forgotten:
            words.pop(key, None)
            gathered.forgotten[key] = max(forgotten_ms, gathered.forgotten.get(key, 0))
        for number, floor in record.floors:
            gathered.floors[number] = max(floor, gathered.floors.get(number, 0))
        for number, floor, deleted_ms in record.deleted:
            gathered.floors[number] = max(floor, gathered.floors.get(number, 0))
            gathered.deleted[number] = deleted_ms
        gathered.audiences.update(record.audiences)
        gathered.segments.update((segment.segment_id, segment) for segment in record.segments)
        gathered.seq = seq
        gathered.changes += len(record.changes) + len(record.imported)
    return gathered


def _note_times(gathered: _Gathered, record: JournalRecord) -> None:
    last = gathered.last_event_ms
    for _, word in record.changes:
        number, ts_ms = word >> V_BITS, (word & _V_MASK) >> 1
        if ts_ms > last.get(number, 0):
            last[number] = ts_ms


def _write(index: Index, txn: lmdb.Transaction, gathered: _Gathered) -> None:
    sizes = Merging(index, txn).write(gathered.words, gathered.forgotten)
    touched = sizes.keys() | gathered.audiences.keys() | gathered.floors.keys() | gathered.last_event_ms.keys()
    for number in touched:
        row = index.audience(txn, number) or AudienceRow(gathered.audiences[number])
        changed = msgspec.structs.replace(
            row,
            size=row.size + sizes.get(number, 0),
            floor=max(row.floor, gathered.floors.get(number, 0)),
            last_event_ms=max(row.last_event_ms, gathered.last_event_ms.get(number, 0)),
            deleted_ms=max(row.deleted_ms, gathered.deleted.get(number, 0)),
        )
        index.put_audience(txn, number, changed)
    _write_forgotten(index, txn, gathered)
    index.put_segments(txn, gathered.segments.values())
    index.set_folded_seq(txn, gathered.seq)


def _write_forgotten(index: Index, txn: lmdb.Transaction, gathered: _Gathered) -> None:
    if gathered.forgotten:
        gate = Gate(index.salt_in(txn))
        for key, forgotten_ms in gathered.forgotten.items():
            index.put_forgotten(txn, gate.mark(key), forgotten_ms)
