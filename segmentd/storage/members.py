"""Reading the members of one audience from the index, in key order, from one snapshot."""

from collections.abc import Iterator
from itertools import islice

import lmdb

from segmentd.domain.members import Member, MembersPage
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, Index


def page(index: Index, audience: int, after: bytes, first: int) -> MembersPage:
    """At most `first` members behind the key `after`. Raises FolderUnusableError."""
    with index.reading() as txn:
        row = index.audience(txn, audience)
        found = list(islice(members_of(index, txn, audience, after=after), first + 1))
    return MembersPage(found[:first], row.size if row is not None else 0, len(found) > first)


def members_of(
    index: Index, txn: lmdb.Transaction, audience: int, *, kind: int | None = None, after: bytes = b""
) -> Iterator[Member]:
    """The members behind the key `after`; only those of one identifier kind if it is given."""
    prefix = AUDIENCE_KEY.pack(audience) + (b"" if kind is None else bytes([kind]))
    start = AUDIENCE_KEY.pack(audience) + after + b"\0" if after else prefix
    with txn.cursor(index.members_db) as cursor:
        if cursor.set_range(max(start, prefix)):
            for key, value in cursor.iternext():
                if not key.startswith(prefix):  # type: ignore[union-attr]  # without buffers they are bytes
                    return
                yield key[4:], V_VALUE.unpack(value)[0]  # type: ignore[misc]


def kinds_of(index: Index, txn: lmdb.Transaction, audience: int) -> list[int]:
    """The numbers of the identifier kinds that the audience has members of, ascending."""
    found: list[int] = []
    prefix = AUDIENCE_KEY.pack(audience)
    with txn.cursor(index.members_db) as cursor:
        more = cursor.set_range(prefix)
        while more and cursor.key()[:4] == prefix:
            kind = cursor.key()[4]
            found.append(kind)
            more = kind < 255 and cursor.set_range(prefix + bytes([kind + 1]))
    return found
