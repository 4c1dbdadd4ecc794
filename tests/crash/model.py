"""What must be on disk after a crash: the fold of every acknowledged request, and of unknown ones all or nothing.

Pure. Knows nothing of segmentd's own code, so that a mistake there cannot hide here as well.

Invariants:
1. Every request carries at least one *marker*: an event for an identifier that no other request ever touches. After a
   restart its markers tell whether the request was applied; some of them without the others is a half-applied request.
2. A request is acknowledged (202), refused (503: nothing of it may be there) or unknown (the connection broke).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

MARKER, CHURN = "marker", "churn"
"""The two audiences, each with a segment of its name: of fresh identifiers, and of ones that change all the time."""

SEGMENTS = (MARKER, CHURN)


class Fate(Enum):
    """What the client knows of its request."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Event(NamedTuple):
    """One passthrough event; `ts` in whole seconds."""

    identifier: str
    audience: str
    qualify: bool
    ts: int

    @property
    def rank(self) -> tuple[int, bool]:
        """The greatest wins: the later one, and at equal `ts` the disqualification."""
        return self.ts, not self.qualify

    def wire(self) -> dict[str, Any]:
        return {
            "type": "passthrough",
            "action": "qualify" if self.qualify else "disqualify",
            "identifiers": {"fs_user_id": self.identifier},
            "data": {"audience_id": self.audience, "ts": self.ts},
        }


class Request(NamedTuple):
    """The events of one request; never changed after it was sent."""

    events: tuple[Event, ...]

    @property
    def markers(self) -> list[str]:
        return [event.identifier for event in self.events if event.audience == MARKER]

    @property
    def touched(self) -> list[str]:
        return [event.identifier for event in self.events]


@dataclass
class Model:
    """The memberships that must be there, and the requests whose fate is still open."""

    winners: dict[str, dict[str, Event]] = field(default_factory=dict)
    unknown: list[Request] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)

    def absorb(self, outcomes: Iterable[tuple[Request, Fate]]) -> None:
        """Take what one client sent, in any order."""
        for request, fate in outcomes:
            if fate is Fate.ACKNOWLEDGED:
                self.apply(request)
            else:
                (self.unknown if fate is Fate.UNKNOWN else self.refused).append(request)

    def apply(self, request: Request) -> None:
        for event in request.events:
            of_identifier = self.winners.setdefault(event.identifier, {})
            of_identifier[event.audience] = max(event, of_identifier.get(event.audience, event), key=lambda e: e.rank)

    def segments_of(self, identifier: str) -> list[str]:
        """The segments in which `identifier` is qualified, in the order of SEGMENTS."""
        winners = self.winners.get(identifier, {})
        return [segment for segment in SEGMENTS if segment in winners and winners[segment].qualify]

    def size(self, segment: str) -> int:
        return sum(segment in winners and winners[segment].qualify for winners in self.winners.values())


@dataclass
class SegmentModel:
    """One segment id, written by one client: what it must be, or one of two things after a broken connection.

    audience: None when it does not exist. revision: the greatest that was ever told.
    """

    segment_id: str
    audience: str | None = None
    revision: int = 0
    attempted: list[str | None] = field(default_factory=list)

    def settle(self, audience: str | None, revision: int) -> None:
        """A write was answered, or a restart showed what became of it."""
        if audience == self.audience:
            assert revision in {self.revision, 0}, f"{self.segment_id}: unchanged, but revision {revision}: {self}"
        elif audience is not None:
            assert revision > self.revision, f"{self.segment_id}: changed, but revision {revision}: {self}"
        self.audience, self.revision, self.attempted = audience, max(revision, self.revision), []

    @property
    def possible(self) -> list[str | None]:
        return [self.audience, *self.attempted]
