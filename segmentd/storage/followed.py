"""The files of a store that another process writes: journal and index of one generation, open for reading.

Never takes the folder's lock, never writes. Environments of an older generation stay a consistent snapshot of the
moment in which they were replaced; `move` goes to the newer one.
"""

from pathlib import Path
from typing import Final

import lmdb

from segmentd.storage.environment import read_errors
from segmentd.storage.errors import FolderUnusableError
from segmentd.storage.folder import DataFolder

_OPENINGS_MAX: Final = 5
"""A scrub may replace the files between a look and the opening, hardly twice in a row."""


class FollowedFiles:
    """`journal` and `index` always belong to the same generation."""

    def __init__(self, path: Path, *, journal_map_bytes: int, index_map_bytes: int) -> None:
        """Open the valid generation. Raises StorageError."""
        self._folder = DataFolder(
            path, journal_map_bytes=journal_map_bytes, index_map_bytes=index_map_bytes, create=False, lock=False
        )
        self._open()

    def move(self) -> bool:
        """Go to the valid generation, if it is another one; whether it was. Nothing may be under way.

        Raises StorageError; then nothing is open.
        """
        if self._folder.generation() == self.generation:
            return False
        self.close()
        self._open()
        return True

    def close(self) -> None:
        """Close both environments; again is harmless."""
        self.journal.close()
        self.index.close()

    def _open(self) -> None:
        for _ in range(_OPENINGS_MAX):
            generation = self._folder.generation()
            try:
                self._open_generation(generation)
            except FolderUnusableError:
                if self._folder.generation() == generation:
                    raise
                continue
            return
        raise FolderUnusableError(f"{self._folder.path}: the files were replaced {_OPENINGS_MAX} times while opening")

    def _open_generation(self, generation: str) -> None:
        journal = self._folder.open_journal(read_only=True, generation=generation)
        try:
            index = self._folder.open_index(read_only=True, generation=generation)
        except BaseException:
            journal.close()
            raise
        # A predecessor that was killed while it read still pins the pages of its snapshot.
        journal.reader_check()
        index.reader_check()
        self.generation, self.journal, self.index = generation, journal, index
        self._last_txn, self._folded_seq = -1, 0

    def begin(self) -> int:
        """Begin to read one snapshot of the index; returns the journal sequence number that it stands for.

        `end` it soon: while it lasts, no page that it can see is used again. Raises FolderUnusableError.
        """
        with read_errors(self.index.path):
            self._txn: lmdb.Transaction = self.index.snapshot()
            if (txn := self._txn.id()) != self._last_txn:
                # Nothing was written to the index since the last look, or this must be read again.
                self._folded_seq = self.index.folded_seq(self._txn)
                self._last_txn = txn
        return self._folded_seq

    def get(self, key: bytes) -> bytes | None:
        """Packed words of an identifier in the snapshot. Raises FolderUnusableError."""
        try:
            return self.index.packed(self._txn, key)
        except lmdb.Error as error:
            raise FolderUnusableError(f"{self.index.path}: cannot be read: {error}") from error

    def end(self) -> None:
        """Give the snapshot back."""
        self._txn.abort()
