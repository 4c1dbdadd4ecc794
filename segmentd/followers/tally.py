"""How many connections all processes have together, in a page of memory that they share.

Each process writes its own numbers only and reads everybody's. A connection on its way between two processes is one
that was sent and not received yet, so it is counted as well; a moment's difference counts it twice, never not at all.

Invariants:
1. Never more than `connections_max` connections, whatever process has them: a process looks before it accepts, and
   what the others may accept between its look and its accept is kept free.
2. What a process had when it was killed is forgotten with `clear`; nothing else ever corrects a number.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Final

import trio

OWNER: Final = 0
FIRST_SLOT: Final = 1
_LOOK_SECONDS: Final = 0.05  # others make room without a word
# One line of a processor's cache for each process, so that they do not wait for each other.
_CELLS: Final = 8
_CELL_BYTES: Final = 8
_OPEN, _SENT, _RECEIVED, _OWNER_SENT, _OWNER_RECEIVED = range(5)
_TAKES_UNTIL = 5  # in the owner's line: the moment until which it takes queries, by the clock that all processes have
_TAKES_NS: Final = 150_000_000


class Tally:
    """The page. `slot`: the place of this process, `OWNER` or that of a follower."""

    def __init__(self, descriptor: int, slot: int) -> None:
        """Raises OSError."""
        self.descriptor: Final = descriptor
        self._cells = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("Q")
        self._slots = range(0, len(self._cells), _CELLS)
        self._slot = slot

    @classmethod
    def create(cls, followers_max: int) -> Tally:
        """The owner's. followers_max: that run at the same time. Raises OSError."""
        descriptor = os.memfd_create("segmentd-tally", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, (followers_max + 1) * _CELLS * _CELL_BYTES)
        return cls(descriptor, OWNER)

    @property
    def processes_max(self) -> int:
        """How many processes may accept connections at the same time."""
        return len(self._slots)

    def opened(self) -> None:
        """This process has one more."""
        self._cells[self._slot * _CELLS + _OPEN] += 1

    def ended(self) -> None:
        """This process has one less."""
        self._cells[self._slot * _CELLS + _OPEN] -= 1

    def sent(self, follower: int) -> None:
        """This process has handed one on. follower: the slot of the follower that it comes from or goes to."""
        self._cells[follower * _CELLS + (_OWNER_SENT if self._slot == OWNER else _SENT)] += 1

    def received(self, follower: int) -> None:
        """What was handed on has arrived here. follower: as for `sent`."""
        self._cells[follower * _CELLS + (_OWNER_RECEIVED if self._slot == OWNER else _RECEIVED)] += 1

    def open_in(self, slot: int) -> int:
        """How many connections one process has."""
        return self._cells[slot * _CELLS + _OPEN]

    def underway_to(self, follower: int) -> int:
        """Connections that the owner has handed to a follower and that it has not received."""
        return self._cells[follower * _CELLS + _OWNER_SENT] - self._cells[follower * _CELLS + _RECEIVED]

    def load(self, slot: int) -> int:
        """How many connections one process has or is about to receive."""
        cells = self._cells
        if slot != OWNER:
            return self.open_in(slot) + self.underway_to(slot)
        return self.open_in(slot) + sum(cells[first + _SENT] - cells[first + _OWNER_RECEIVED] for first in self._slots)

    def take_queries(self) -> None:
        """The owner's: for a moment from now on followers may give it queries."""
        self._cells[OWNER * _CELLS + _TAKES_UNTIL] = time.monotonic_ns() + _TAKES_NS

    def owner_takes(self) -> bool:
        """Whether the owner has just said so."""
        return time.monotonic_ns() < self._cells[OWNER * _CELLS + _TAKES_UNTIL]

    def total(self) -> int:
        """All connections, those on their way included."""
        cells = self._cells
        count = 0
        for first in self._slots:
            # Received before sent, so that what arrives meanwhile is not missed.
            received = cells[first + _RECEIVED] + cells[first + _OWNER_RECEIVED]
            count += cells[first + _OPEN] + cells[first + _SENT] + cells[first + _OWNER_SENT] - received
        return count

    def clear(self, follower: int) -> int:
        """A follower has ended. Returns how many connections ended with it."""
        first = follower * _CELLS
        lost = self._cells[first + _OPEN] + self.underway_to(follower)
        for cell in range(first, first + _CELLS):
            self._cells[cell] = 0
        return lost


class SharedRoom:
    """Room for connections, as the server asks for it; shared by all processes."""

    def __init__(self, tally: Tally, connections_max: int) -> None:
        self._tally = tally
        # The others may be about to accept one each.
        self._below = max(1, connections_max - tally.processes_max + 1)

    async def wait(self) -> None:
        """Returns when one more connection may be accepted."""
        while self._tally.total() >= self._below:  # noqa: ASYNC110  # no event reaches from process to process
            await trio.sleep(_LOOK_SECONDS)

    def entered(self) -> None:
        """This process has one more connection, accepted or handed to it."""
        self._tally.opened()

    def left(self) -> None:
        """This process has one less."""
        self._tally.ended()
