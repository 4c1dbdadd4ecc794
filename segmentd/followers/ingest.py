"""How much of the owner's loop goes into events: what decides whether queries are better answered elsewhere.

Owns one number, worked out from what the committer tells. Passes everything on to the observer behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from segmentd.runtime.write import CommitObserver

# What a request and each of its changes keep the loop busy for: `python -m bench followers` prints it as e. Half or
# twice as much would move the bound below, not what it is for. Not the loop's own processor time: most of that may be
# queries, and a process that is busy with queries alone is what the balance of connections is for.
_REQUEST_SECONDS: Final = 50e-6
_CHANGE_SECONDS: Final = 4e-6
# Up to this share of the loop's time queries hardly notice events; above it, what was too much adds up.
_SHARE: Final = 0.2
_BUSY_SECONDS: Final = 0.01
_REMEMBERED_SECONDS: Final = 0.05


class Ingest:
    """A CommitObserver in front of another one."""

    def __init__(self, observer: CommitObserver, clock: Callable[[], float] = trio.current_time) -> None:
        """clock: seconds, never going back."""
        self._observer = observer
        self._clock = clock
        self._excess_seconds = 0.0
        self._at = 0.0

    def is_busy(self) -> bool:
        """Whether events have taken so much of the loop lately that queries wait for them."""
        return self._excess_seconds > _BUSY_SECONDS and self._now() > _BUSY_SECONDS

    def committed(self, *, requests: int, changes: int, journal_bytes: int, seconds: float) -> None:
        """See CommitObserver."""
        excess = self._now() + requests * _REQUEST_SECONDS + changes * _CHANGE_SECONDS
        self._excess_seconds = min(excess, _REMEMBERED_SECONDS)
        self._observer.committed(requests=requests, changes=changes, journal_bytes=journal_bytes, seconds=seconds)

    def commit_failed(self) -> None:
        """See CommitObserver."""
        self._observer.commit_failed()

    def checkpointed(self, *, changes: int, seconds: float) -> None:
        """See CommitObserver."""
        self._observer.checkpointed(changes=changes, seconds=seconds)

    def checkpoint_failed(self) -> None:
        """See CommitObserver."""
        self._observer.checkpoint_failed()

    def _now(self) -> float:
        """What is left of the excess now."""
        now = self._clock()
        self._excess_seconds = max(0.0, self._excess_seconds - _SHARE * (now - self._at))
        self._at = now
        return self._excess_seconds
