"""What the edge knows of other processes that serve the same port: that there may be some, and how to reach them.

Owns the words for it. Never knows how a connection gets from one process to another (`segmentd.followers` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import trio


class NotHereError(Exception):
    """Another process must answer this request; nothing was done for it here."""


class Arrived(NamedTuple):
    """What another process says of a connection that it hands over; nothing where it was accepted here."""

    begun: bytes = b""
    hops: int = 0


ACCEPTED: Final = Arrived()


class Room(Protocol):
    """Room for connections, which are bounded."""

    async def wait(self) -> None:
        """Returns when one more connection may be accepted."""

    def entered(self) -> None:
        """There is one more, accepted or handed over."""

    def left(self) -> None:
        """There is one less."""


class LocalRoom:
    """Room where there are no other processes."""

    def __init__(self, connections_max: int) -> None:
        self._free = connections_max
        self._freed = trio.Event()

    async def wait(self) -> None:
        """See Room."""
        while self._free <= 0:
            await self._freed.wait()

    def entered(self) -> None:
        """See Room."""
        self._free -= 1

    def left(self) -> None:
        """See Room."""
        self._free += 1
        self._freed.set()
        self._freed = trio.Event()


class Arrival(Protocol):
    """A connection that another process hands over."""

    @property
    def begun(self) -> bytes:
        """What was read and not answered."""

    @property
    def hops(self) -> int:
        """How often it was handed over, this time included."""


Take = Callable[[Arrival, int], None]
"""(connection, descriptor of its socket, which is the callee's): serves it from now on."""


class Gives(Protocol):
    """Where queries may be answered better than here."""

    def wants(self, hops: int) -> bool:
        """Whether a query on a connection that was handed over `hops` times is answered better there, now."""

    def give(self, descriptor: int, begun: bytes, hops: int) -> bool:
        """Hand a connection over; False: it could not be, and stays. begun: what was read and not answered."""


class Elsewhere(Gives, Protocol):
    """Other processes that accept on the same listener and answer queries."""

    @property
    def room(self) -> Room:
        """For the connections of all processes together."""

    def take_with(self, take: Take) -> None:
        """What they hand over is given to `take` from now on."""

    async def leave(self) -> None:
        """The service stops: returns when all have ended; until then connections may still be handed over."""

    async def scrape(self) -> None:
        """Have metrics of all processes be as of now."""

    def status(self) -> dict[str, int]:
        """How many there are, for people."""
