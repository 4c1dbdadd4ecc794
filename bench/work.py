"""The work: which queries and which events, named and ready to be sent.

Owns the list of what is measured and how it is worded. Never runs anything.
"""

import random
from functools import lru_cache
from typing import Final, Literal

import msgspec

from bench.answers import Question
from bench.texts import javascript_sdk_body, python_sdk_body
from bench.world import (
    MEMBERSHIPS_PER_IDENTIFIER,
    SEGMENT_IDS,
    answer_of,
    member,
    segments_of,
    stranger,
)

SEED: Final = 20_250_602
QUESTIONS: Final = 50_000
INGEST_CONNECTIONS: Final = 16
FIXED_EVENTS_PER_SECOND: Final = 50_000
FIXED_BATCH: Final = 500


class QueryWork(msgspec.Struct, frozen=True, kw_only=True):
    """Queries of one kind from a number of connections, each sending its next one as soon as it has its answer."""

    text: Literal["python", "javascript"] = "python"
    hits: bool = True
    audiences: int = 3
    connections: int = 16

    @property
    def name(self) -> str:
        kind = "variables" if self.text == "python" else "literals"
        found = "hit" if self.hits else "miss"
        audiences = "1 audience" if self.audiences == 1 else f"{self.audiences} audiences"
        connections = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"query, {kind}, {found}, {audiences}, {connections}"


class EventWork(msgspec.Struct, frozen=True, kw_only=True):
    """Events in requests of `batch`, of new identifiers or of the same thousand ones. pace: events/s, 0: full rate."""

    batch: int
    distinct: bool = True
    connections: int = INGEST_CONNECTIONS
    pace: int = 0

    @property
    def name(self) -> str:
        return f"events, requests of {self.batch}, {'distinct' if self.distinct else 'repeated'} identifiers"


class MixedWork(msgspec.Struct, frozen=True, kw_only=True):
    """Queries and events at the same time."""

    query: QueryWork
    events: EventWork

    @property
    def name(self) -> str:
        pace = f"{self.events.pace // 1000}k events/s" if self.events.pace else "full-rate ingest"
        return f"queries during {pace}"


# One dimension varies at a time around the first entry.
QUERIES: Final = (
    QueryWork(),
    QueryWork(connections=1),
    QueryWork(connections=256),
    QueryWork(audiences=1),
    QueryWork(audiences=20),
    QueryWork(hits=False),
    QueryWork(text="javascript"),
    QueryWork(text="javascript", hits=False),
    QueryWork(text="javascript", connections=1),
)

EVENTS: Final = (
    EventWork(batch=1),
    EventWork(batch=10),
    EventWork(batch=100),
    EventWork(batch=500),
    EventWork(batch=1, distinct=False),
    EventWork(batch=10, distinct=False),
    EventWork(batch=500, distinct=False),
)

MIXED: Final = (
    MixedWork(query=QueryWork(), events=EventWork(batch=FIXED_BATCH, connections=4, pace=FIXED_EVENTS_PER_SECOND)),
    MixedWork(query=QueryWork(), events=EventWork(batch=FIXED_BATCH, connections=4)),
)


@lru_cache(maxsize=2)
def questions_of(work: QueryWork, memberships: int) -> tuple[Question, ...]:
    """The requests of `work` with their answers, over a world of so many memberships; the same for every contestant."""
    chance = random.Random(SEED)
    subset = range(work.audiences)
    segments = SEGMENT_IDS[: work.audiences]
    worded = python_sdk_body if work.text == "python" else javascript_sdk_body
    questions: list[Question] = []
    while len(questions) < QUESTIONS:
        number = chance.randrange(memberships // MEMBERSHIPS_PER_IDENTIFIER)
        found = segments_of(number, subset) if work.hits else []
        if work.hits and not found:
            continue
        value = member(number) if work.hits else stranger(number)
        questions.append(Question(worded(value, segments), answer_of(found)))
    return tuple(questions)
