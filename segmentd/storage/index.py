"""The index: the state as of a journal sequence number, in key order.

Databases (all in one LMDB environment, so that a fold is one transaction):

| name | key | value |
|---|---|---|
| `memberships` | identifier key | packed words, as in memory |
| `members` | audience number (u32 BE) + identifier key | `v` (u64 LE); qualified members only |
| `audiences` | audience number (u32 BE) | msgpack array of `AudienceRow` |
| `forgotten` | mark of a forgotten identifier (`Gate.mark`) | when, ms since the epoch (u64 BE) |
| `segments` | segment id | msgpack of a segment step, deleted ones too (their revision must not go back) |
| `kinds` | kind number (1 byte) | identifier name |
| `meta` | `folded_seq` | u64 BE: every journal record up to this one is in here |
| | `salt` | random bytes that key the marks |
| | `sweep` | how far the sweep of deleted audiences has come (`storage/sweep.py`) |

One process at a time writes (the checkpointer while a server runs); any number read.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import cast

import lmdb
import msgpack
import msgspec

from segmentd.domain.gate import SALT_BYTES
from segmentd.domain.identifiers import KIND_NUMBER_MAX
from segmentd.domain.segments import SegmentRecord
from segmentd.storage.environment import copy_errors, open_environment, read_errors, write_errors
from segmentd.storage.errors import StorageError
from segmentd.storage.readers import Reader, readers_in
from segmentd.storage.records import segment_fields, segment_from_fields

AUDIENCE_KEY = Struct(">I")
_U64 = Struct(">Q")
V_VALUE = Struct("<Q")
_FOLDED_SEQ = b"folded_seq"
_SALT = b"salt"
_SWEEP = b"sweep"
_DATABASES = ("memberships", "members", "audiences", "segments", "kinds", "forgotten", "meta")


class AudienceRow(msgspec.Struct, frozen=True, array_like=True):
    """An audience as stored."""

    audience_id: str
    size: int = 0
    """Qualified members."""
    floor: int = 0
    """See `segmentd.domain.gate`."""
    last_event_ms: int = 0
    """The largest `ts` of its events, 0 if there was none."""
    deleted_ms: int = 0
    """When it was deleted, 0 if it lives. The row stays, because of its floor."""
    swept: bool = False
    """A deleted audience of which no membership is left in the index."""


class Index:
    """Typed access to the databases. Iterators live inside the transaction that `reading` gives."""

    def __init__(self, path: Path, *, map_bytes: int, read_only: bool = False) -> None:
        """Open the index in the folder `path`. Raises FolderUnusableError."""
        self.map_bytes = map_bytes
        self._read_only = read_only
        self._open(path)

    def _open(self, path: Path) -> None:
        self.path = path
        read_only = self._read_only
        databases_max = len(_DATABASES)
        self._env = open_environment(path, map_bytes=self.map_bytes, databases_max=databases_max, read_only=read_only)
        with read_errors(path):
            handles = {name: self._env.open_db(name.encode(), create=not read_only) for name in _DATABASES}
        self.memberships_db, self.members_db = handles["memberships"], handles["members"]
        self.audiences_db, self.segments_db = handles["audiences"], handles["segments"]
        self.forgotten_db = handles["forgotten"]
        self._kinds_db, self._meta_db = handles["kinds"], handles["meta"]

    def move_to(self, path: Path) -> None:
        """Close this environment and go on with the one in `path`; nothing may be under way."""
        self.close()
        self._open(path)

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """One consistent snapshot. Keep it short or old pages pile up. Raises FolderUnusableError."""
        with read_errors(self.path), self._env.begin() as txn:
            yield txn

    def snapshot(self) -> lmdb.Transaction:
        """The same for whoever ends it (`abort`) without fail: without the context's cost. Raises lmdb.Error."""
        return self._env.begin()

    @contextmanager
    def writing(self) -> Iterator[lmdb.Transaction]:
        """One transaction: all of it is on disk at the end, or nothing. Raises StoreFullError, StoreFailureError."""
        with write_errors(self.path, self._env), self._env.begin(write=True) as txn:
            yield txn

    def folded_seq(self, txn: lmdb.Transaction) -> int:
        """The journal sequence number that this snapshot stands for."""
        value = txn.get(_FOLDED_SEQ, db=self._meta_db)
        return int(_U64.unpack(value)[0]) if value else 0

    def set_folded_seq(self, txn: lmdb.Transaction, seq: int) -> None:
        txn.put(_FOLDED_SEQ, _U64.pack(seq), db=self._meta_db)

    def memberships(self, txn: lmdb.Transaction, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(identifier key, packed words) in key order, of the keys behind `after`."""
        cursor = txn.cursor(self.memberships_db)
        # The least key behind `after` is `after` and a zero byte.
        if after and not cursor.set_range(after + b"\0"):
            return iter(())
        return cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())

    def packed(self, txn: lmdb.Transaction, key: bytes) -> bytes | None:
        """Packed words of one identifier, None if it has none."""
        return cast("bytes | None", txn.get(key, db=self.memberships_db))

    def sweep_state(self, txn: lmdb.Transaction) -> tuple[list[int], bytes]:
        """(numbers of the audiences that are being swept, the last key that was looked at)."""
        stored = txn.get(_SWEEP, db=self._meta_db)
        numbers, after = msgpack.unpackb(stored) if stored else ([], b"")
        return numbers, after

    def set_sweep_state(self, txn: lmdb.Transaction, numbers: list[int], after: bytes) -> None:
        if numbers:
            txn.put(_SWEEP, msgpack.packb((numbers, after)), db=self._meta_db)
        else:
            txn.delete(_SWEEP, db=self._meta_db)

    def members(self, txn: lmdb.Transaction) -> Iterator[tuple[int, bytes, int]]:
        """(audience number, identifier key, v) in key order."""
        for key, value in cast("Iterator[tuple[bytes, bytes]]", txn.cursor(self.members_db).iternext()):
            yield AUDIENCE_KEY.unpack(key[:4])[0], key[4:], V_VALUE.unpack(value)[0]

    def audiences(self, txn: lmdb.Transaction) -> Iterator[tuple[int, AudienceRow]]:
        """(number, row) by number."""
        for key, value in txn.cursor(self.audiences_db).iternext():
            yield AUDIENCE_KEY.unpack(key)[0], AudienceRow(*msgpack.unpackb(value))

    def put_audience(self, txn: lmdb.Transaction, number: int, row: AudienceRow) -> None:
        txn.put(AUDIENCE_KEY.pack(number), msgpack.packb(msgspec.structs.astuple(row)), db=self.audiences_db)

    def audience(self, txn: lmdb.Transaction, number: int) -> AudienceRow | None:
        """The row of an audience, or None."""
        value = txn.get(AUDIENCE_KEY.pack(number), db=self.audiences_db)
        return None if value is None else AudienceRow(*msgpack.unpackb(value))

    def forgotten(self, txn: lmdb.Transaction) -> Iterator[tuple[bytes, int]]:
        """(mark, forgotten_ms) of every forgotten identifier."""
        for mark, value in txn.cursor(self.forgotten_db).iternext():
            yield bytes(mark), _U64.unpack(value)[0]

    def put_forgotten(self, txn: lmdb.Transaction, mark: bytes, forgotten_ms: int) -> None:
        """Note when an identifier was forgotten; of two times the later one counts."""
        held = txn.get(mark, db=self.forgotten_db)
        latest = max(forgotten_ms, _U64.unpack(held)[0]) if held else forgotten_ms
        txn.put(mark, _U64.pack(latest), db=self.forgotten_db)

    def salt(self) -> bytes:
        """The store's salt, made at the first call. Raises StoreFullError, StoreFailureError."""
        with self.writing() as txn:
            return self.salt_in(txn)

    def salt_in(self, txn: lmdb.Transaction) -> bytes:
        """The same inside a write transaction."""
        salt = txn.get(_SALT, db=self._meta_db)
        if salt is None:
            salt = secrets.token_bytes(SALT_BYTES)
            txn.put(_SALT, salt, db=self._meta_db)
        return bytes(salt)

    def put_salt(self, txn: lmdb.Transaction, salt: bytes) -> None:
        """Take over another store's; marks that were made with the one before say nothing any more."""
        txn.put(_SALT, salt, db=self._meta_db)

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
            known = self.known_kinds(txn)
            for name in names:
                if name not in known:
                    number = max(known.values(), default=-1) + 1
                    if number > KIND_NUMBER_MAX:
                        raise StorageError(f"{self.path}: more than {KIND_NUMBER_MAX + 1} identifier names were used")
                    txn.put(bytes([number]), name.encode(), db=self._kinds_db)
                    known[name] = number
        return known

    def known_kinds(self, txn: lmdb.Transaction) -> dict[str, int]:
        """Every identifier name that was ever used, with its number."""
        return {bytes(value).decode(): key[0] for key, value in txn.cursor(self._kinds_db).iternext()}

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

    def readers(self) -> list[Reader]:
        """Who holds a snapshot now, in any process."""
        return readers_in("index", self._env.readers())

    def copy_to(self, path: Path) -> None:
        """Copy the environment, as of now, into the existing empty folder `path`. Raises FolderUnusableError."""
        with copy_errors(self.path, path):
            self._env.copy(str(path), compact=True)

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self._env.close()
