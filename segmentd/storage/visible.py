"""The page that owner and followers share: up to which journal record the store may be seen.

Owns one page of anonymous memory that the owner makes and its followers inherit as a file descriptor. Only the owner
writes, and the number only rises. The owner publishes a record when it is on disk and before it shows any of it
itself; a follower shows exactly what is published. So no process ever shows a state that another one has not come to.

The number is one aligned machine word, which a memoryview of native 64-bit integers moves in one piece; a reader gets
the number before or the number after, never a mixture.
"""

import mmap
import os
import secrets
from typing import Final

_PAGE_BYTES: Final = mmap.PAGESIZE
_RECORD: Final = 0
_NONCE: Final = 1


class Visible:
    """One view of the page. `create` in the owner, `of` in a follower."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        self._words = memoryview(mapped).cast("Q")
        self.nonce: Final[int] = self._words[_NONCE]
        """Another one at each start of an owner."""

    @classmethod
    def create(cls) -> tuple["Visible", int]:
        """A page with nothing published, and the descriptor to hand to followers (inherited only where asked for).

        The caller closes the descriptor. Raises OSError.
        """
        descriptor = os.memfd_create("segmentd-visible", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _PAGE_BYTES)
        mapped = mmap.mmap(descriptor, _PAGE_BYTES)
        memoryview(mapped).cast("Q")[_NONCE] = secrets.randbits(63) + 1
        return cls(mapped), descriptor

    @classmethod
    def of(cls, descriptor: int) -> "Visible":
        """The page behind an inherited descriptor, which is no longer needed afterwards; to be read only.

        Raises OSError, ValueError (it is no such page).
        """
        if os.fstat(descriptor).st_size != _PAGE_BYTES:
            raise ValueError("the descriptor is not the page that a segmentd shares with its followers")
        return cls(mmap.mmap(descriptor, _PAGE_BYTES, access=mmap.ACCESS_READ))

    def publish(self, record: int) -> None:
        """Everything up to journal record `record` may be seen from now on."""
        self._words[_RECORD] = record

    def get(self) -> int:
        """Number of the last record that may be seen."""
        return self._words[_RECORD]

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._mapped.close()
