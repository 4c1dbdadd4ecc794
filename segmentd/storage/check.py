"""Verifying a data folder: does everything that is written twice agree?

Counts are counted again, members are compared with memberships in both directions, the journal's records are read.
Reads only; the folder must not be served meanwhile (the lock says so).
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import lmdb
import msgspec

from segmentd.domain.gate import MARK_BYTES
from segmentd.domain.membership import TS_MS_MAX, V_BITS, WORD_BYTES, find, unpack
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, Index
from segmentd.storage.journal import Journal
from segmentd.storage.records import DamagedRecordError, decode_record

DIFFERENCES_LISTED_MAX = 20
_V_MASK = (1 << V_BITS) - 1


class CheckReport(msgspec.Struct):
    """What was found. `differences` holds the first ones, `differences_total` counts all."""

    identifiers: int = 0
    memberships: int = 0
    members: int = 0
    audiences: int = 0
    segments: int = 0
    folded_seq: int = 0
    journal_records: int = 0
    differences: list[str] = []
    differences_total: int = 0

    def differ(self, text: str) -> None:
        """Note a difference."""
        self.differences_total += 1
        if len(self.differences) < DIFFERENCES_LISTED_MAX:
            self.differences.append(text)


def check(folder: DataFolder) -> CheckReport:
    """Verify the store in `folder`. Raises StorageError if it cannot be opened or read."""
    report = CheckReport()
    journal, index = folder.open_journal(read_only=True), folder.open_index(read_only=True)
    try:
        _check_index(index, report)
        _check_journal(journal, report)
    finally:
        index.close()
        journal.close()
    return report


def _check_index(index: Index, report: CheckReport) -> None:
    # audience number → its members; also of audiences that have tombstones alone.
    counted: defaultdict[int, int] = defaultdict(int)
    with index.reading() as txn:
        report.folded_seq = index.folded_seq(txn)
        report.segments = sum(record.definition is not None for record in index.segments(txn))
        members = txn.cursor(index.members_db)
        for audience, key, v in _decisions(index.memberships(txn), report):
            counted[audience] += not v & 1
            if v & 1:
                continue
            row = AUDIENCE_KEY.pack(audience) + key
            stored = members.get(row)
            if stored is None:
                report.differ(f"members: {_shown(key)} is qualified in audience {audience} but not listed there")
            elif stored != V_VALUE.pack(v):
                report.differ(f"members: {_shown(key)} in audience {audience} is listed with another time")
        report.members = index.entries(txn, "members")
        if report.members != sum(counted.values()):
            report.differ(f"members: {report.members} are listed, {sum(counted.values())} are qualified")
            _check_orphans(index, txn, report)
        _check_audiences(index, txn, counted, report)
        for mark, forgotten_ms in index.forgotten(txn):
            if len(mark) != MARK_BYTES or not 0 < forgotten_ms <= TS_MS_MAX:
                report.differ(f"forgotten: {mark.hex()} at {forgotten_ms} ms is no mark and time")


def _decisions(rows: Iterator[tuple[bytes, bytes]], report: CheckReport) -> Iterator[tuple[int, bytes, int]]:
    """(audience, key, v) of every membership; counts and checks the rows on the way."""
    for key, packed in rows:
        report.identifiers += 1
        if not packed or len(packed) % WORD_BYTES:
            report.differ(f"memberships: {_shown(key)} has {len(packed)} bytes, no multiple of {WORD_BYTES}")
            continue
        words = unpack(packed)
        report.memberships += len(words)
        audiences = [word >> V_BITS for word in words]
        if any(left >= right for left, right in pairwise(audiences)):
            report.differ(f"memberships: the words of {_shown(key)} are not ascending")
        for word in words:
            yield word >> V_BITS, key, word & _V_MASK


def _check_orphans(index: Index, txn: lmdb.Transaction, report: CheckReport) -> None:
    """Name the members that no membership stands behind."""
    for audience, key, v in index.members(txn):
        packed = bytes(txn.get(key, db=index.memberships_db) or b"")
        if len(packed) % WORD_BYTES == 0 and find(unpack(packed), audience) != v:
            report.differ(f"members: {_shown(key)} is listed in audience {audience} but not qualified so")


def _check_audiences(index: Index, txn: lmdb.Transaction, counted: dict[int, int], report: CheckReport) -> None:
    living: dict[str, int] = {}
    for number, row in index.audiences(txn):
        audience_id, size = row.audience_id, row.size
        if row.swept and number in counted:
            report.differ(f"audiences: {audience_id} (number {number}) is swept, and something of it is left")
        if size != counted.pop(number, 0):
            report.differ(f"audiences: {audience_id} is stored with size {size}, and a recount gives another")
        if not 0 <= row.floor <= _V_MASK:
            report.differ(f"audiences: {audience_id} has the floor {row.floor}, which is no time")
        if row.deleted_ms:
            continue
        report.audiences += 1
        if audience_id in living:
            report.differ(f"audiences: {audience_id} has two numbers, {living[audience_id]} and {number}")
        living[audience_id] = number
    for number, size in counted.items():
        report.differ(f"audiences: number {number} has {size} members and no entry")


def _check_journal(journal: Journal, report: CheckReport) -> None:
    before = None
    for seq, blob in journal.records(0):
        report.journal_records += 1
        if before is not None and seq != before + 1:
            report.differ(f"journal: record {before} is followed by {seq}")
        if before is None and seq > report.folded_seq + 1:
            report.differ(f"journal: begins at {seq}, but the index ends at {report.folded_seq}")
        before = seq
        try:
            decode_record(blob)
        except DamagedRecordError:
            report.differ(f"journal: record {seq} is damaged")


def _shown(key: bytes) -> str:
    return f"#{key[0]}:{key[1:].decode(errors='replace')!r}" if key else "an empty key"
