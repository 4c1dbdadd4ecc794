"""Sweeping deleted audiences out of the index, a bounded number of identifiers at a time.

A fold marks the row of a deleted audience and leaves its memberships where they are; nothing shows them any more. One
pass over all identifiers then drops them, tombstones included, and marks the rows as swept. Each step is one
transaction that also notes how far the pass has come, so it goes on where it was killed. A pass drops all audiences
that are deleted when it begins; when another one joins them, it begins again, and finds little to do the second time.
"""

from collections import defaultdict
from itertools import islice

import lmdb
import msgspec

from segmentd.domain.membership import V_BITS, unpack, without
from segmentd.storage.failpoints import hit
from segmentd.storage.index import AUDIENCE_KEY, Index


class Swept(msgspec.Struct, frozen=True):
    """What one step did."""

    numbers: list[int] = []
    """Audiences of which nothing is left now; told again when there is nothing to do, a report may have been lost."""
    dropped: int = 0
    """Memberships that were dropped."""
    more: bool = False


def sweep(index: Index, *, identifiers_max: int) -> Swept:
    """Look at the next `identifiers_max` identifiers. Blocking. Raises StoreFullError, StoreFailureError."""
    with index.writing() as txn:
        deleted = {number: row.swept for number, row in index.audiences(txn) if row.deleted_ms}
        dead = [number for number, swept in deleted.items() if not swept]
        if not dead:
            return Swept(numbers=list(deleted))
        numbers, after = index.sweep_state(txn)
        if numbers != dead:
            after = b""
        found = list(islice(index.memberships(txn, after), identifiers_max))
        dropped = _drop(index, txn, found, dead)
        hit("sweeping_deleted", parent=True)
        if len(found) == identifiers_max:
            index.set_sweep_state(txn, dead, found[-1][0])
            return Swept(dropped=dropped, more=True)
        for number in dead:
            row = index.audience(txn, number)
            assert row is not None  # noqa: S101  # it was listed above, in this transaction
            index.put_audience(txn, number, msgspec.structs.replace(row, swept=True))
        index.set_sweep_state(txn, [], b"")
        return Swept(numbers=dead, dropped=dropped)


def _drop(index: Index, txn: lmdb.Transaction, found: list[tuple[bytes, bytes]], dead: list[int]) -> int:
    """Drop what the identifiers `found` have in the audiences `dead`; returns how many memberships that were."""
    gone = frozenset(dead)
    sizes: defaultdict[int, int] = defaultdict(int)
    dropped = 0
    with txn.cursor(index.memberships_db) as memberships, txn.cursor(index.members_db) as members:
        for key, packed in found:
            kept = without(packed, gone)
            if kept is packed:
                continue
            if kept:
                memberships.put(key, kept)
            elif memberships.set_key(key):
                memberships.delete()
            for word in unpack(packed):
                number = word >> V_BITS
                dropped += number in gone
                if number in gone and not word & 1:
                    sizes[number] += 1
                    if members.set_key(AUDIENCE_KEY.pack(number) + key):
                        members.delete()
    for number, size in sizes.items():
        row = index.audience(txn, number)
        assert row is not None  # noqa: S101  # members of an audience without a row were never written
        index.put_audience(txn, number, msgspec.structs.replace(row, size=row.size - size))
    return dropped
