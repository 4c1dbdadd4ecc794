"""Verifying a data folder: does everything that is written twice agree?

Counts are counted again, members are compared with memberships in both directions, the journal's records are read.
Reads only; the folder must not be served meanwhile (the lock says so).
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import lmdb
import msgspec

from segmentd.domain.membership import V_BITS, WORD_BYTES, unpack
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
    counted: defaultdict[int, int] = defaultdict(int)
    with index.reading() as txn:
        report.folded_seq = index.folded_seq(txn)
        report.segments = sum(record.definition is not None for record in index.segments(txn))
        members = txn.cursor(index.members_db)
        for audience, key, v in _qualified(index.memberships(txn), report):
            counted[audience] += 1
            row = AUDIENCE_KEY.pack(audience) + key
            stored = members.get(row)
            if stored is None:
                report.differ(f"members: {_shown(key)} is qualified in audience {audience} but not listed there")
            elif stored != V_VALUE.pack(v):
                report.differ(f"members: {_shown(key)} in audience {audience} is listed with another time")
        report.members = index.entries(txn, "members")
        if report.members != sum(counted.values()):
            report.differ(f"members: {report.members} are listed, {sum(counted.values())} are qualified")
        _check_sizes(index, txn, counted, report)


def _qualified(rows: Iterator[tuple[bytes, bytes]], report: CheckReport) -> Iterator[tuple[int, bytes, int]]:
    """(audience, key, v) of every qualified membership; counts and checks the rows on the way."""
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
            if not word & 1:
                yield word >> V_BITS, key, word & _V_MASK


def _check_sizes(index: Index, txn: lmdb.Transaction, counted: defaultdict[int, int], report: CheckReport) -> None:
    ids: dict[str, int] = {}
    for number, row in index.audiences(txn):
        audience_id, size = row.audience_id, row.size
        report.audiences += 1
        if audience_id in ids:
            report.differ(f"audiences: {audience_id} has two numbers, {ids[audience_id]} and {number}")
        ids[audience_id] = number
        if size != counted.pop(number, 0):
            report.differ(f"audiences: {audience_id} is stored with size {size}, and a recount gives another")
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
