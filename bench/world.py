"""The world that every contestant is loaded with: who is a member of what, as plain arithmetic.

Owns the names and the truth, so that any answer can be predicted without a store. Never talks to a server.

Invariants: identifier `i` has five memberships, in the audiences congruent to `i` modulo 4; the one in audience
`i % AUDIENCES` is a disqualification, the other four are qualifications. Segment `n` points at audience `n`.
The same arithmetic stands in `lua/events.lua` (mode `members`).
"""

from collections.abc import Sequence
from typing import Final

AUDIENCES: Final = 20
STRIDE: Final = 4
MEMBERSHIPS_PER_IDENTIFIER: Final = AUDIENCES // STRIDE
IDENTIFIER_NAME: Final = "fs_user_id"
# A fixed moment in the past (2025-06-02): runs are repeatable, and later than nothing that the bench sends.
MEMBERS_TS_MS: Final = 1_748_851_070_000
# Events of measured ingest are newer than what was loaded, so each of them changes the store.
LIVE_TS_MS: Final = MEMBERS_TS_MS + 86_400_000

AUDIENCE_IDS: Final = [f"audience_{number}" for number in range(AUDIENCES)]
SEGMENT_IDS: Final = [f"segment_{number}" for number in range(AUDIENCES)]


def member(number: int) -> str:
    """The identifier value of loaded identifier `number`."""
    return f"user-{number:011d}"


def stranger(number: int) -> str:
    """An identifier value of the same length that no store knows."""
    return f"none-{number:011d}"


def live(number: int) -> str:
    """The identifier value that measured ingest uses for its event `number` (see `lua/events.lua`)."""
    return f"live-{number:011d}"


def memberships_of(number: int) -> list[tuple[int, int]]:
    """(audience, v) of loaded identifier `number`; v = ts_ms * 2 + disqualified."""
    first = number % AUDIENCES
    return [
        ((first + STRIDE * step) % AUDIENCES, MEMBERS_TS_MS * 2 + (step == 0))
        for step in range(MEMBERSHIPS_PER_IDENTIFIER)
    ]


def segments_of(number: int, subset: Sequence[int]) -> list[str]:
    """The segment ids of `subset` in which loaded identifier `number` is qualified, in the order of `subset`."""
    return [
        SEGMENT_IDS[segment] for segment in subset if (segment - number) % STRIDE == 0 and segment != number % AUDIENCES
    ]


def live_segments_of(number: int, subset: Sequence[int]) -> list[str]:
    """The same for the identifier of live event `number` of distinct ingest: every tenth is a disqualification."""
    if number % 10 == 9:
        return []
    return [SEGMENT_IDS[segment] for segment in subset if segment == number % AUDIENCES]


def answer_of(segments: Sequence[str]) -> dict[str, object]:
    """The GraphQL answer that shows exactly `segments` as qualified."""
    edges = [{"node": {"name": segment, "state": "qualified"}} for segment in segments]
    return {"data": {"customer": {"audiences": {"edges": edges}}}}
