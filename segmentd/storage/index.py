"""The index: the state as of a journal sequence number, in key order.

Databases (all in one LMDB environment, so that a fold is one transaction):

| name | key | value |
|---|---|---|
| `memberships` | identifier key | packed words, as in memory |
| `members` | audience number (u32 BE) + identifier key | `v` (u64 LE); qualified members only |
| `audiences` | audience number (u32 BE) | msgpack `[id, size]` |
| `segments` | segment id | msgpack of a segment step, deleted ones too (their revision must not go back) |
| `kinds` | kind number (1 byte) | identifier name |
| `meta` | `folded_seq` | u64 BE: every journal record up to this one is in here |

One process at a time writes (the checkpointer while a server runs); any number read.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import cast

import lmdb
import msgpack

from segmentd.domain.identifiers import KIND_NUMBER_MAX
from segmentd.domain.segments import SegmentRecord
from segmentd.storage.environment import open_environment, write_errors
from segmentd.storage.errors import StorageError
from segmentd.storage.records import segment_fields, segment_from_fields

AUDIENCE_KEY = Struct(">I")
_U64 = Struct(">Q")
V_VALUE = Struct("<Q")
_FOLDED_SEQ = b"folded_seq"
_DATABASES = ("memberships", "members", "audiences", "segments", "kinds", "meta")


class Index:
    """Typed access to the databases. Iterators live inside the transaction that `reading` gives."""

    def __init__(self, path: Path, *, map_bytes: int, read_only: bool = False) -> None:
        """Open the index in the folder `path`. Raises FolderUnusableError."""
        self.path = path
        self._env = open_environment(path, map_bytes=map_bytes, databases_max=len(_DATABASES), read_only=read_only)
        handles = {name: self._env.open_db(name.encode(), create=not read_only) for name in _DATABASES}
        self.memberships_db, self.members_db = handles["memberships"], handles["members"]
        self.audiences_db, self.segments_db = handles["audiences"], handles["segments"]
        self._kinds_db, self._meta_db = handles["kinds"], handles["meta"]

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """One consistent snapshot. Keep it short or old pages pile up."""
        with self._env.begin() as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[lmdb.Transaction]:
        """One transaction: all of it is on disk at the end, or nothing. Raises StoreFullError, StoreFailureError."""
        with write_errors(self.path), self._env.begin(write=True) as txn:
            yield txn

    def folded_seq(self, txn: lmdb.Transaction) -> int:
        """The journal sequence number that this snapshot stands for."""
        value = txn.get(_FOLDED_SEQ, db=self._meta_db)
        return int(_U64.unpack(value)[0]) if value else 0

    def set_folded_seq(self, txn: lmdb.Transaction, seq: int) -> None:
        txn.put(_FOLDED_SEQ, _U64.pack(seq), db=self._meta_db)

    def memberships(self, txn: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
        """(identifier key, packed words) in key order."""
        return cast("Iterator[tuple[bytes, bytes]]", txn.cursor(self.memberships_db).iternext())

    def members(self, txn: lmdb.Transaction) -> Iterator[tuple[int, bytes, int]]:
        """(audience number, identifier key, v) in key order."""
        for key, value in cast("Iterator[tuple[bytes, bytes]]", txn.cursor(self.members_db).iternext()):
            yield AUDIENCE_KEY.unpack(key[:4])[0], key[4:], V_VALUE.unpack(value)[0]

    def audiences(self, txn: lmdb.Transaction) -> Iterator[tuple[int, str, int]]:
        """(number, id, size) by number."""
        for key, value in txn.cursor(self.audiences_db).iternext():
            audience_id, size = msgpack.unpackb(value)
            yield AUDIENCE_KEY.unpack(key)[0], audience_id, size

    def put_audience(self, txn: lmdb.Transaction, number: int, audience_id: str, size: int) -> None:
        txn.put(AUDIENCE_KEY.pack(number), msgpack.packb((audience_id, size)), db=self.audiences_db)

    def audience(self, txn: lmdb.Transaction, number: int) -> tuple[str, int] | None:
        """(id, size), or None."""
        value = txn.get(AUDIENCE_KEY.pack(number), db=self.audiences_db)
        if value is None:
            return None
        audience_id, size = msgpack.unpackb(value)
        return audience_id, size

    def segments(self, txn: lmdb.Transaction) -> Iterator[SegmentRecord]:
        """The last step of every segment, deleted ones too."""
        for _, value in txn.cursor(self.segments_db).iternext():
            yield segment_from_fields(msgpack.unpackb(value, use_list=False))

    def put_segments(self, txn: lmdb.Transaction, records: Iterable[SegmentRecord]) -> None:
        for record in records:
            txn.put(record.segment_id.encode(), msgpack.packb(segment_fields(record)), db=self.segments_db)

    def kind_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """The numbers of identifier names; names that are new get the next free number, durably.

        Raises StorageError if more names were ever used than numbers exist.
        """
        with self.writing() as txn:
            known = {bytes(value).decode(): key[0] for key, value in txn.cursor(self._kinds_db).iternext()}
            for name in names:
                if name not in known:
                    number = max(known.values(), default=-1) + 1
                    if number > KIND_NUMBER_MAX:
                        raise StorageError(f"{self.path}: more than {KIND_NUMBER_MAX + 1} identifier names were used")
                    txn.put(bytes([number]), name.encode(), db=self._kinds_db)
                    known[name] = number
        return known

    def entries(self, txn: lmdb.Transaction, database: str) -> int:
        """How many entries a database has."""
        handle = {"memberships": self.memberships_db, "members": self.members_db, "audiences": self.audiences_db}
        return txn.stat(handle[database])["entries"]

    def map_bytes_used(self) -> int:
        """Bytes of the file that are in use or were, the high-water mark."""
        return (int(self._env.info()["last_pgno"]) + 1) * int(self._env.stat()["psize"])

    def reader_check(self) -> int:
        """Clear reader slots of processes that died; returns how many."""
        return self._env.reader_check()

    def copy_to(self, path: Path) -> None:
        """Copy the environment, as of now, into the existing empty folder `path`."""
        self._env.copy(str(path), compact=True)

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self._env.close()
