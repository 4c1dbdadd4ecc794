"""Folding the journal into the index.

One fold takes a bounded number of changes, merges them with what the index holds, and writes the result, the sizes and
the sequence number in one transaction. So a fold is there whole or not at all, and folding a record again is harmless:
merging is idempotent. Keys are written in order, many at a time, because neighbours share LMDB pages; that is five to
ten times as fast as putting them as they come.
"""

from collections import defaultdict
from typing import cast

import lmdb
import msgspec

from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, WORD_BYTES, merge, merge_packed, unpack
from segmentd.domain.segments import SegmentRecord
from segmentd.storage.errors import StorageError
from segmentd.storage.failpoints import hit
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, AudienceRow, Index
from segmentd.storage.journal import Journal
from segmentd.storage.records import JournalRecord, decode_numbered

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

    packed: dict[bytes, bytes] = {}
    forgotten: dict[bytes, int] = {}
    """key → ms; what `packed` has of such a key came after it was forgotten."""
    audiences: dict[int, str] = {}
    floors: dict[int, int] = {}
    deleted: dict[int, int] = {}
    """audience number → ms; its memberships are left to the sweep."""
    last_event_ms: dict[int, int] = {}
    segments: dict[str, SegmentRecord] = {}
    seq: int = 0
    changes: int = 0
    more: bool = False


def fold(journal: Journal, index: Index, *, changes_max: int) -> Folded:
    """Fold records until `changes_max` changes are reached (at least one record) or the journal ends.

    Blocking. Raises StoreFullError, StoreFailureError, StorageError (a record is missing or damaged); then the index is
    as it was.
    """
    with index.reading() as txn:
        start = index.folded_seq(txn)
    gathered = _gather(journal, start, changes_max)
    if gathered.seq > start:
        with index.writing() as txn:
            if (present := index.folded_seq(txn)) != start:
                # The checkpointer of a killed owner was still at it. What it folded must not be turned back.
                return Folded(seq=present, changes=0, more=True)
            _write(index, txn, gathered)
            hit("during_checkpoint", parent=True)
    return Folded(seq=max(gathered.seq, start), changes=gathered.changes, more=gathered.more)


def _gather(journal: Journal, start: int, changes_max: int) -> _Gathered:
    gathered = _Gathered(seq=start)
    packed = gathered.packed
    for seq, blob in journal.records(start):
        if gathered.changes >= changes_max:
            gathered.more = True
            break
        if seq != gathered.seq + 1:
            raise StorageError(f"{journal.path}: record {gathered.seq + 1} is missing, the next one is {seq}")
        record = decode_numbered(journal.path, seq, blob)
        for changes in (record.changes, record.imported):
            for key, word in changes:
                held = packed.get(key)
                packed[key] = word.to_bytes(WORD_BYTES, "little") if held is None else merge(held, word)[0]
        _note_times(gathered, record)
        for key, forgotten_ms in record.forgotten:
            packed.pop(key, None)
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
    sizes = _write_memberships(index, txn, gathered)
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


def _write_memberships(index: Index, txn: lmdb.Transaction, gathered: _Gathered) -> dict[int, int]:
    """Merge and write identifiers and members; returns by how much the size of each audience changed."""
    sizes: defaultdict[int, int] = defaultdict(int)
    puts: list[tuple[bytes, bytes]] = []
    deletes: list[bytes] = []
    packed, forgotten = gathered.packed, gathered.forgotten
    keys = sorted(packed.keys() | forgotten.keys())
    with txn.cursor(index.memberships_db) as cursor:
        stored = cast("dict[bytes, bytes]", dict(cursor.getmulti(keys)))
        rows: list[tuple[bytes, bytes]] = []
        for key in keys:
            old = stored.get(key, b"")
            gained = packed.get(key, b"")
            new = merge_packed(old, gained) if old and key not in forgotten else gained
            if new == old:
                continue
            if new:
                rows.append((key, new))
            elif cursor.set_key(key):
                cursor.delete()
            _diff(key, old, new, sizes, puts, deletes)
        cursor.putmulti(rows)
    with txn.cursor(index.members_db) as cursor:
        for member in deletes:
            if cursor.set_key(member):
                cursor.delete()
        puts.sort()
        cursor.putmulti(puts)
    return sizes


def _diff(
    key: bytes,
    old: bytes,
    new: bytes,
    sizes: defaultdict[int, int],
    puts: list[tuple[bytes, bytes]],
    deletes: list[bytes],
) -> None:
    """What changes in `members` and sizes when an identifier goes from `old` to `new` packed words."""
    before = {word >> V_BITS: word for word in unpack(old)}
    for word in unpack(new):
        audience = word >> V_BITS
        was = before.pop(audience, None)
        if was == word:
            continue
        was_member = was is not None and not was & 1
        if not word & 1:
            puts.append((AUDIENCE_KEY.pack(audience) + key, V_VALUE.pack(word & _V_MASK)))
            sizes[audience] += not was_member
        elif was_member:
            deletes.append(AUDIENCE_KEY.pack(audience) + key)
            sizes[audience] -= 1
    for audience, word in before.items():
        # Merging loses nothing; what is gone now was forgotten.
        if not word & 1:
            deletes.append(AUDIENCE_KEY.pack(audience) + key)
            sizes[audience] -= 1
