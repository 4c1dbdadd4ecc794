"""Remembering how commits and checkpoints went, for whoever asks about the health of the store.

Owns the last of each. Passes everything on to the observer behind it, and never decides anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from segmentd.runtime.write import CommitObserver


class Checkpoint(msgspec.Struct, frozen=True):
    """A finished checkpoint. ended_at: seconds since the epoch."""

    ended_at: float
    seconds: float
    changes: int


class RememberingObserver:
    """A CommitObserver in front of another one."""

    def __init__(self, observer: CommitObserver, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since the epoch."""
        self._observer = observer
        self._clock = clock
        self.last_checkpoint: Checkpoint | None = None
        self.checkpoint_failures = 0
        self.commit_failures = 0
        self.last_commit_seconds: float | None = None
        """How long the last commit took, its fsync included."""

    def committed(self, *, requests: int, changes: int, journal_bytes: int, seconds: float) -> None:
        """See CommitObserver."""
        self.last_commit_seconds = seconds
        self._observer.committed(requests=requests, changes=changes, journal_bytes=journal_bytes, seconds=seconds)

    def commit_failed(self) -> None:
        """See CommitObserver."""
        self.commit_failures += 1
        self._observer.commit_failed()

    def checkpointed(self, *, changes: int, seconds: float) -> None:
        """See CommitObserver."""
        self.last_checkpoint = Checkpoint(self._clock(), seconds, changes)
        self._observer.checkpointed(changes=changes, seconds=seconds)

    def checkpoint_failed(self) -> None:
        """See CommitObserver."""
        self.checkpoint_failures += 1
        self._observer.checkpoint_failed()
