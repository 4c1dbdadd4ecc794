"""The journal: what happened since the last checkpoint, one record for each group commit.

Owns: sequence number → record, in an LMDB environment of its own, so that a checkpoint's long transaction in the index
never holds up a commit. Invariants: (1) a record is there whole or not at all, and on disk when `append` returns;
(2) sequence numbers rise by one and are never used twice; (3) a record is removed only after the index has folded it.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

import lmdb

from segmentd.storage.environment import copy_errors, open_environment, read_errors, write_errors
from segmentd.storage.errors import StoreFullError
from segmentd.storage.readers import Reader, readers_in

_SEQ = Struct(">Q")
# Removing a record costs about a microsecond and dirties a page; a bound keeps every commit short.
CUT_RECORDS_MAX = 1_000
CUT_RESERVE_BYTES = 4 * 1024 * 1024
"""A deletion copies the pages that it changes, and a full map has none left; this much is added for it alone."""
_NO_RECORD = b"\xff" * 8
"""A key that no record can ever have."""


class Journal:
    """One writer (the owner of the folder) and any number of readers in other processes."""

    def __init__(self, path: Path, *, map_bytes: int, read_only: bool = False) -> None:
        """Open the journal in the folder `path`. Raises FolderUnusableError."""
        self.path = path
        self._map_bytes = map_bytes
        mapped = map_bytes + CUT_RESERVE_BYTES if read_only else map_bytes
        self._env = open_environment(path, map_bytes=mapped, databases_max=0, read_only=read_only)
        # Both in memory for the owner; readers ask the environment.
        self._held: deque[tuple[int, int]] = deque()
        self._next_seq = 1
        self.bytes_held = 0
        """Bytes of all records that are not cut yet."""
        self.oldest_seq = 0
        """Number of the oldest record that is not cut yet, 0 if there is none."""
        if not read_only:
            for seq, blob in self.records(0):
                self._hold(seq, len(blob))

    def move_to(self, path: Path) -> None:
        """Close this environment and go on with the empty one in `path`; nothing may be under way.

        Sequence numbers go on as well.
        """
        self._env.close()
        self._env = open_environment(path, map_bytes=self._map_bytes, databases_max=0, read_only=False)
        self.path = path
        self._held.clear()
        self.bytes_held = self.oldest_seq = 0

    @property
    def records_held(self) -> int:
        """How many records are not cut yet."""
        return len(self._held)

    @property
    def last_seq(self) -> int:
        """Number of the newest record, 0 if there never was one."""
        return self._next_seq - 1

    def continue_after(self, seq: int) -> None:
        """Never give out `seq` or less again (the index has folded that far, and the records may be cut)."""
        self._next_seq = max(self._next_seq, seq + 1)

    def append(self, blob: bytes, *, cut_to: int = 0) -> int:
        """Make one record durable, and remove some records up to `cut_to` in the same transaction.

        Returns its sequence number. Raises StoreFullError (nothing was written), StoreFailureError (outcome unknown).
        Blocking (one fsync): call in a worker thread, one call at a time.
        """
        try:
            return self._append(blob, cut_to)
        except StoreFullError:
            if not 0 < self.oldest_seq <= cut_to:
                raise
        self._cut_alone(cut_to)
        return self._append(blob, cut_to)

    def cut(self, cut_to: int) -> None:
        """Remove all records up to `cut_to`, which the index has folded. Raises StoreFullError, StoreFailureError."""
        while 0 < self.oldest_seq <= cut_to:
            with write_errors(self.path, self._env), self._env.begin(write=True) as txn:
                cut = self._delete(txn, cut_to)
            self._forget(cut)

    def records(self, after: int) -> Iterator[tuple[int, bytes]]:
        """(seq, record) of every record with seq > after, in order, from one consistent snapshot."""
        with read_errors(self.path), self._env.begin() as txn, txn.cursor() as cursor:
            if cursor.set_range(_SEQ.pack(after + 1)):
                for key, blob in cursor.iternext():
                    yield _SEQ.unpack(key)[0], blob

    def map_bytes_used(self) -> int:
        """Bytes of the file that are in use or were, the high-water mark."""
        info = self._env.info()
        page_bytes: int = self._env.stat()["psize"]
        return (int(info["last_pgno"]) + 1) * page_bytes

    def reader_check(self) -> int:
        """Clear reader slots of processes that died; returns how many."""
        return self._env.reader_check()

    def readers(self) -> list[Reader]:
        """Who holds a snapshot now, in any process."""
        return readers_in("journal", self._env.readers())

    def copy_to(self, path: Path) -> None:
        """Copy the environment, as of now, into the existing empty folder `path`. Raises FolderUnusableError."""
        with copy_errors(self.path, path):
            self._env.copy(str(path), compact=True)

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self._env.close()

    def _append(self, blob: bytes, cut_to: int) -> int:
        seq = self._next_seq
        with write_errors(self.path, self._env), self._env.begin(write=True) as txn:
            cut = self._delete(txn, cut_to)
            txn.put(_SEQ.pack(seq), blob, append=True)
        self._forget(cut)
        self._hold(seq, len(blob))
        return seq

    def _cut_alone(self, cut_to: int) -> None:
        """Make room in a full map: a record that comes with a cut cannot have the pages that the cut sets free."""
        self._env.set_mapsize(max(self._map_bytes, self.map_bytes_used()) + CUT_RESERVE_BYTES)
        try:
            with write_errors(self.path, self._env), self._env.begin(write=True) as txn:
                cut = self._delete(txn, cut_to)
            self._forget(cut)
            # LMDB gives freed pages to the second transaction after; this is the first, and changes nothing.
            with write_errors(self.path, self._env), self._env.begin(write=True) as txn:
                txn.put(_NO_RECORD, b"")
                txn.delete(_NO_RECORD)
        finally:
            self._env.set_mapsize(self._map_bytes)

    def _delete(self, txn: lmdb.Transaction, cut_to: int) -> int:
        """Delete the oldest records up to `cut_to`, at most CUT_RECORDS_MAX; returns how many."""
        cut = 0
        for held_seq, _ in self._held:
            if held_seq > cut_to or cut >= CUT_RECORDS_MAX:
                break
            txn.delete(_SEQ.pack(held_seq))
            cut += 1
        return cut

    def _forget(self, cut: int) -> None:
        for _ in range(cut):
            self.bytes_held -= self._held.popleft()[1]
        self.oldest_seq = self._held[0][0] if self._held else 0

    def _hold(self, seq: int, size: int) -> None:
        self._held.append((seq, size))
        self.oldest_seq = self.oldest_seq or seq
        self.bytes_held += size
        self._next_seq = max(self._next_seq, seq + 1)
