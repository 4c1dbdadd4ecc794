"""How much of all clients' bytes together may be in memory: bodies until their answer, answers until they are read.

Owns the counts. Each body has a bound of its own; without one for all, a thousand slow uploads would be gigabytes, and
so would a thousand answers that nobody reads.
Invariant: bytes are counted when they are there, not when they are announced, so that nobody holds room by announcing.
"""

from __future__ import annotations

from typing import Final

from segmentd.domain.refusals import Overloaded
from segmentd.settings import Settings

EVENTS_PATH: Final = "/v3/events"


class Holdings:
    """Those of one process. Events have a count of their own: their crowd takes no room from queries."""

    def __init__(self, settings: Settings) -> None:
        limits, seconds = settings.limits, settings.runtime.retry_after_seconds
        self.events = Holding(limits.bodies_bytes_max, "bodies_bytes_max", seconds)
        self.others = Holding(limits.bodies_bytes_max, "bodies_bytes_max", seconds)
        self.answers = Holding(limits.answers_bytes_max, "answers_bytes_max", seconds)

    def open(self, path: str) -> Held:
        """One more body, of which nothing has come."""
        return Held(self.events if path == EVENTS_PATH else self.others)


class Holding:
    """One count, and its bound."""

    def __init__(self, bytes_max: int, limit_name: str, retry_after_seconds: int) -> None:
        self.bytes_held = 0
        self._bytes_max = bytes_max
        self._limit_name = limit_name
        self._retry_after_seconds = retry_after_seconds

    def refusal(self) -> Overloaded:
        """What whoever is one too many is told."""
        where = f"{self._bytes_max} bytes ([limits] {self._limit_name})"
        return Overloaded(f"All requests together hold {where}; send it again.", self._retry_after_seconds)

    def has_room(self, count: int) -> bool:
        """Whether so many more bytes may come. A single request's may, whatever the bound."""
        return self.bytes_held == 0 or self.bytes_held + count <= self._bytes_max


class Held:
    """What one request holds; `close` it when it holds nothing more."""

    __slots__ = ("_bytes_held", "_holding")

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._bytes_held = 0

    def came(self, count: int) -> None:
        """So many bytes more are in memory. Raises Overloaded; then they are to be forgotten."""
        if not self._holding.has_room(count):
            raise self._holding.refusal()
        self._bytes_held += count
        self._holding.bytes_held += count

    def close(self) -> None:
        """Nothing of it is in memory any more. Closing twice is nothing."""
        self._holding.bytes_held -= self._bytes_held
        self._bytes_held = 0
