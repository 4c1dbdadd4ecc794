"""What more cores give, on paper: arithmetic over what one query and one event cost each process.

Owns the formulas. Never measures, except what it takes to decode a request of events, which no process tells apart.

    q    processor time of a query in a follower        e    of an event in the owner
    f    of folding an event in one follower            c    of folding an event in the checkpointer
    d    of decoding an event, a part of e              E    events a second

The owner has one core and takes at most 1/e events a second, the checkpointer another one and folds at most 1/c. Every
follower folds every event, so each of n followers has 1 - f x E of a core left, and together they answer
n x (1 - f x E) / q queries a second. If followers decoded events and handed the owner what is to be journalled, the
owner would take 1/(e - d) events a second, and the followers would share d x E. Left out: what the owner answers while
no events come, memory bandwidth, the network, and that two threads of one core are not two cores.
"""

import time
from collections.abc import Iterator
from typing import Final

import msgspec

from segmentd.domain.events import EventRules, parse_events
from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema

CORES: Final = (2, 8, 16, 64)
FOLLOWERS_MAX: Final = 64  # of [server] followers
_ROUNDS: Final = 400
_TS_MS: Final = 1_750_000_000_000


class Costs(msgspec.Struct, frozen=True):
    """Seconds of processor time, see above."""

    q: float
    e: float
    f: float
    c: float
    d: float


def decoding_seconds(batch: int) -> float:
    """Processor time for each event of a request of `batch`."""
    rules = EventRules(IdentifierSchema([IdentifierKind("fs_user_id", Confidence.HIGH, 0)]))
    listed = [
        {
            "type": "passthrough",
            "action": "qualify",
            "identifiers": {"fs_user_id": f"live-{number:011d}"},
            "data": {"audience_id": f"audience_{number % 20}", "ts": _TS_MS / 1000},
        }
        for number in range(batch)
    ]
    body = msgspec.json.encode(listed)
    started = time.process_time()
    for _ in range(_ROUNDS):
        parse_events(body, ndjson=False, rules=rules, now_ms=_TS_MS)
    return (time.process_time() - started) / _ROUNDS / batch


def events_max(costs: Costs, *, decoded_by_followers: bool = False) -> float:
    """Events a second for as long as one likes: the owner's core is full, or the checkpointer's."""
    owner = costs.e - costs.d if decoded_by_followers else costs.e
    return 1 / max(owner, costs.c)


def queries(costs: Costs, cores: int, events: float, *, decoded_by_followers: bool = False) -> float:
    """Queries a second that the followers answer beside so many events a second; 0 where they have no room."""
    followers = max(1, min(FOLLOWERS_MAX, cores - 2))
    left = followers * (1 - costs.f * events)
    if cores <= 2:
        left -= costs.c * events  # the checkpointer has no core of its own
    if decoded_by_followers:
        left -= costs.d * events
    return max(0.0, left) / costs.q


def described(costs: Costs) -> Iterator[str]:
    """The table, as Markdown."""
    micro = {name: value * 1e6 for name, value in msgspec.structs.asdict(costs).items()}
    most, more = events_max(costs), events_max(costs, decoded_by_followers=True)
    yield "Processor time in µs: " + ", ".join(f"{name} = {value:.2f}" for name, value in micro.items()) + "."
    yield f"The owner is full at 1/e = {1 / costs.e:,.0f} events/s, at 1/(e - d) = {1 / (costs.e - costs.d):,.0f} if"
    yield f"followers decode; the checkpointer at 1/c = {1 / costs.c:,.0f}. The smaller number is what lasts."
    yield f"Folding takes f x E = {costs.f * most:.0%} of every follower's core at {most:,.0f} events/s."
    yield ""
    yield (
        f"| cores | followers | queries/s, no events | beside {most / 2:,.0f} events/s | beside {most:,.0f} events/s"
        f" | beside {more:,.0f} events/s, decoded by followers |"
    )
    yield "|---:|---:|---:|---:|---:|---:|"
    for cores in CORES:
        cells = [queries(costs, cores, events) for events in (0.0, most / 2, most)]
        cells.append(queries(costs, cores, more, decoded_by_followers=True))
        followers = max(1, min(FOLLOWERS_MAX, cores - 2))
        yield f"| {cores} | {followers} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |"
