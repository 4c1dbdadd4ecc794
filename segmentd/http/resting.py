"""A connection of the lane between two requests, as the reactor knows it."""

from math import inf
from typing import Protocol

import trio

from segmentd.http.exchange import Waiting


class Respond(Protocol):
    """What answers on the spot."""

    def __call__(self, received: bytes, /) -> tuple[bytes, bool] | Waiting | None:
        """(the answer's bytes, whether the connection stays), or None where `received` is not for here.

        Waiting: `Reactor.answer` is called with the answer.
        """


class Connection:
    """One connection of the lane, as the reactor knows it. `respond`: what answers on the spot."""

    __slots__ = (
        "answered_at",
        "descriptor",
        "ended",
        "failure",
        "idle_since",
        "owes",
        "received",
        "respond",
        "stays",
        "task",
        "unread",
        "unsent",
    )

    def __init__(self, descriptor: int, respond: Respond) -> None:
        self.descriptor = descriptor
        self.respond = respond
        self.task: trio.lowlevel.Task | None = None
        """The task that rests."""
        self.owes = False
        """Whether an answer comes later; nothing is read meanwhile."""
        self.idle_since = 0.0
        self.answered_at = -inf
        """When it got its last answer on the spot, by the clock of busy polling."""
        self.unread = False
        """Whether there may be bytes to read that no edge will tell of."""
        self.ended = False
        """Whether the client has closed its side, perhaps behind bytes that were not read yet."""
        self.received = b""
        """What the task is woken with; empty at the end of the stream, or when the time was over."""
        self.unsent = b""
        """What is left of an answer."""
        self.stays = True
        """False: the last answer ends the connection."""
        self.failure: Exception | None = None
