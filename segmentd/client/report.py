"""What a client is told to send, and what it tells of it: lines, options, the report, the errors.

Owns the vocabulary that the client's parts share. Never sends, waits or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

MIB = 1 << 20


class Line(NamedTuple):
    """One event on its way."""

    number: int
    """Its index in the sequence from 0, or its line in the file from 1; rises from line to line."""
    text: bytes
    """The event as JSON, without a newline inside."""
    flaw: str = ""
    """Why it is not worth sending; empty for all that can be read."""


class Problem(NamedTuple):
    """One thing that is wrong with one event, as the server says it."""

    number: int
    """The `number` of the line."""
    field: str
    """Path inside the event such as `data.ts`; empty for the event as a whole."""
    reason: str
    """Stable upper-case code; empty where the server gives none."""
    message: str
    """What is wrong, for people."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a client sends. The first two are the server's own defaults; smaller limits are found out and kept to."""

    events_per_request_max: int = 500
    body_bytes_max: int = MIB
    """Of a request's events before compression, in bytes. One event that is larger is sent alone."""
    gzip: bool = False
    """Compress bodies: worth its processor time where the way to the server is slow."""
    answer_seconds_max: float = 60.0
    """How long the server may be silent until the connection counts as lost."""
    give_up_seconds: float = 300.0
    """How long one request is tried again, counted from its first failure."""
    pause_seconds_min: float = 0.25
    """The first pause between two tries; it doubles up to `pause_seconds_max`, a random part is taken off."""
    pause_seconds_max: float = 30.0

    def __post_init__(self) -> None:
        if self.events_per_request_max < 1 or self.body_bytes_max < 1:
            raise ValueError("events_per_request_max and body_bytes_max are at least 1")
        if self.answer_seconds_max <= 0 or self.give_up_seconds < 0:
            raise ValueError("answer_seconds_max is more than 0, give_up_seconds at least 0")
        if not 0 < self.pause_seconds_min <= self.pause_seconds_max:
            raise ValueError("pause_seconds_min is more than 0 and at most pause_seconds_max")


@dataclass
class Report:
    """What became of the events. True at every moment, also after an error or an interruption.

    Events are sent in order, so three things say all: everything before `next_number` was acknowledged or rejected,
    nothing of `unknown` was answered, and nothing of the rest was applied.
    """

    next_number: int
    """The first line that is not dealt with: where to go on."""
    acknowledged: int = 0
    """Events that the server answered with 202: on disk and visible."""
    rejected: int = 0
    """Invalid events that were left out; 0 unless they were asked to be."""
    requests: int = 0
    """Requests that were sent, repeated ones included."""
    retries: int = 0
    """Requests among them that were sent again as they were."""
    unknown: tuple[int, int] | None = None
    """First and last number of the request whose answer never came: applied whole or not at all. Sending it again is
    safe, because of two decisions the later `ts` wins."""


class ClientError(Exception):
    """The server cannot be used as asked. Base of all errors here; its text is for people."""


class Refused(ClientError):
    """The server refuses for a reason that no repetition changes, such as a wrong key. Nothing of the request was
    applied."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (status {status})")
        self.status = status


class GaveUp(ClientError):
    """No answer, or none but "later", for `give_up_seconds`."""


class InvalidEvents(ClientError):
    """At least one event is invalid; nothing of its request was applied."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        others = len({problem.number for problem in problems}) - 1
        more = f" (and {others} more)" if others else ""
        super().__init__(f"event {first.number}: {first}{more}")
        self.problems = problems
        """All that the server named of the request; it may have cut the list."""
