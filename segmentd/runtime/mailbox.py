"""What actors talk through: bounded mailboxes and one-shot replies.

A mailbox is bounded by messages and by weight (for commits: changes), refuses at once when it is full, and gives out
everything that waits in one go, which is what a group commit wants; a Trio memory channel has none of the three.
Closing lets what is in it drain. Invariant: the weight of what is held never exceeds `weight_max`, except that an
empty mailbox takes one message of any weight (the edge has bounded it already).
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class MailboxFullError(Exception):
    """No room; nothing was put."""


class MailboxClosedError(Exception):
    """The mailbox takes nothing more; for a reader: and it is empty."""


class Mailbox(Generic[T]):
    """Many senders, one reader."""

    def __init__(self, *, messages_max: int, weight_max: int | None = None) -> None:
        self._messages_max = messages_max
        self._weight_max = weight_max
        self._held: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    @property
    def weight(self) -> int:
        """Weight of everything that waits."""
        return self._weight

    def has_room(self, weight: int = 1) -> bool:
        """Whether `put_nowait` would take a message of this weight now."""
        return not self._closed and not self._is_full(weight)

    def put_nowait(self, message: T, weight: int = 1) -> None:
        """Raises MailboxFullError, MailboxClosedError."""
        if self._closed:
            raise MailboxClosedError
        if self._is_full(weight):
            raise MailboxFullError
        self._held.append((message, weight))
        self._weight += weight
        self._readers.unpark()

    async def put(self, message: T, weight: int = 1) -> None:
        """Wait for room. Raises MailboxClosedError."""
        while not self._closed and self._is_full(weight):
            await self._senders.park()
        self.put_nowait(message, weight)

    async def take(self, *, weight_max: int | None = None) -> list[T]:
        """Everything that waits, in order; at least one message, at most `weight_max` beyond the first.

        Raises MailboxClosedError when the mailbox is closed and empty.
        """
        while not self._held:
            if self._closed:
                raise MailboxClosedError
            await self._readers.park()
        taken: list[T] = []
        weight = 0
        while self._held:
            message, its_weight = self._held[0]
            if taken and weight_max is not None and weight + its_weight > weight_max:
                break
            self._held.popleft()
            taken.append(message)
            weight += its_weight
        self._weight -= weight
        self._senders.unpark_all()
        return taken

    def close(self) -> None:
        """Take nothing more; what is held can still be taken."""
        self._closed = True
        self._readers.unpark_all()
        self._senders.unpark_all()

    def _is_full(self, weight: int) -> bool:
        if not self._held:
            return False
        if len(self._held) >= self._messages_max:
            return True
        return self._weight_max is not None and self._weight + weight > self._weight_max


class Reply(Generic[T]):
    """A value or an error that is set once, synchronously, and waited for by at most a few."""

    __slots__ = ("_call", "_error", "_event", "_is_set", "_value")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None
        self._call: Callable[[Exception | None], None] | None = None
        self._value: T | None = None
        self._error: Exception | None = None

    def set(self, value: T) -> None:
        """Answer."""
        self._value = value
        self._tell()

    def fail(self, error: Exception) -> None:
        """Answer with an error, raised where it is waited for."""
        self._error = error
        self._tell()

    def then(self, call: Callable[[Exception | None], None]) -> None:
        """Have `call` be called with the error, if any, as soon as there is an answer; once, and it must not raise."""
        if self._is_set:
            call(self._error)
        else:
            self._call = call

    async def wait(self) -> T:
        """The answer. Cancelling gives up the wait and nothing else."""
        if self._event is None:
            self._event = trio.Event()
            if self._is_set:
                self._event.set()
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set() was given a T

    def _tell(self) -> None:
        self._is_set = True
        if self._event is not None:
            self._event.set()
        if self._call is not None:
            self._call(self._error)
