"""How much of all bodies together may be in memory: those on their way in, and those whose answer is awaited.

Owns the count. Each body has a bound of its own; without one for all, a thousand slow uploads would be gigabytes.
Invariant: bytes are counted when they have come, not when they are announced, so that nobody holds room by announcing;
so the count may exceed the bound by one read of each connection, which is then refused.
"""

from __future__ import annotations

from typing import Final

from segmentd.domain.refusals import Overloaded

EVENTS_PATH: Final = "/v3/events"


class Inflows:
    """The bodies of one process. Events have a count of their own: their crowd takes no room from queries."""

    def __init__(self, bytes_max: int, retry_after_seconds: int) -> None:
        """bytes_max: for each of the two counts."""
        self.events = Inflow(bytes_max, retry_after_seconds)
        self.others = Inflow(bytes_max, retry_after_seconds)

    def open(self, path: str) -> Body:
        """One more body, of which nothing has come."""
        return Body(self.events if path == EVENTS_PATH else self.others)


class Inflow:
    """Some of the bodies."""

    def __init__(self, bytes_max: int, retry_after_seconds: int) -> None:
        self.bytes_held = 0
        self._bytes_max = bytes_max
        self._retry_after_seconds = retry_after_seconds

    def refusal(self) -> Overloaded:
        """What whoever is one too many is told."""
        message = f"Bodies of more than {self._bytes_max} bytes are being read ([limits] bodies_bytes_max)."
        return Overloaded(f"{message} Send it again.", self._retry_after_seconds)

    def has_room(self, count: int) -> bool:
        """Whether so many more bytes may come. A single body may, whatever the bound."""
        return self.bytes_held == 0 or self.bytes_held + count <= self._bytes_max


class Body:
    """What one request holds; `close` it when the request is answered."""

    __slots__ = ("_bytes_held", "_inflow")

    def __init__(self, inflow: Inflow) -> None:
        self._inflow = inflow
        self._bytes_held = 0

    def came(self, count: int) -> None:
        """So many bytes more are in memory. Raises Overloaded; then they are to be forgotten."""
        if not self._inflow.has_room(count):
            raise self._inflow.refusal()
        self._bytes_held += count
        self._inflow.bytes_held += count

    def close(self) -> None:
        """Nothing of it is in memory any more. Closing twice is nothing."""
        self._inflow.bytes_held -= self._bytes_held
        self._bytes_held = 0
