"""One request until it has an answer: when it is sent again, and after how long. Without I/O.

`exchange` is a generator: it yields what is to be done (`Post`, `Wait`) and is sent what came of it (`Answer`, `Lost`,
or nothing after a wait). Who drives it owns sockets and sleep. Invariants:
1. A request is repeated byte for byte.
2. Retry-After is honoured: no repetition comes earlier.
3. The last try is at most `give_up_seconds` after the first failure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final

from segmentd.client.answers import Answer, Lost, message_of
from segmentd.client.report import GaveUp, Options, Report

Clock = Callable[[], float]
"""Seconds from any beginning; never goes back."""
Chance = Callable[[], float]
"""A random number from 0 to 1."""

# Too slow, too many, overloaded or stopping; and what a proxy says while the server behind it starts again.
# After 500 the server's answer to the same request may be another one once it was restarted.
LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
# After these nothing was applied. After 503 nearly always; but a disk may have failed in the middle of writing, and
# then the server itself does not know.
_NOTHING_APPLIED: Final = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Post:
    """Send this and tell the answer."""

    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Wait:
    """Sleep for `seconds`; `reason` is why."""

    seconds: float
    reason: str


Step = Post | Wait
Result = Answer | Lost | None


Span = tuple[int, int] | None
"""First and last number of the events of a request; None for a query, which changes nothing."""


def exchange(
    post: Post, span: Span, options: Options, clock: Clock, chance: Chance, report: Report
) -> Generator[Step, Result, Answer]:
    """Send `post` until there is an answer that counts; keeps `requests`, `retries` and `unknown` of `report` true.

    After an answer of success `unknown` is left to whoever writes down that the events are acknowledged: an
    interruption in between must not make them look as if nothing had come of them. Raises GaveUp.
    """
    doubtful, tries, deadline = False, 0, 0.0
    while True:
        report.requests += 1
        report.retries += tries > 0
        report.unknown = span
        result = yield post
        if result is None:
            raise TypeError("whoever drives this must send what came of the Post")
        final = isinstance(result, Answer) and result.status not in LATER
        doubtful = doubtful or (not final and _may_be_applied(result))
        taken = isinstance(result, Answer) and result.status < 300
        if not taken and not doubtful:
            report.unknown = None
        if isinstance(result, Answer) and final:
            return result
        tries += 1
        now = clock()
        deadline = deadline if tries > 1 else now + options.give_up_seconds
        asked = result.retry_after_seconds if isinstance(result, Answer) else 0.0
        if now >= deadline or now + asked > deadline:
            raise GaveUp(f"{_reason(result)}; given up after {tries} {'try' if tries == 1 else 'tries'}")
        yield Wait(min(max(asked, _pause(tries, options, chance)), deadline - now), _reason(result))


def _pause(tries: int, options: Options, chance: Chance) -> float:
    # The exponent is bounded, because the pause is anyway and 2.0**1024 is none.
    longest = min(options.pause_seconds_max, options.pause_seconds_min * 2.0 ** min(tries - 1, 32))
    return longest * (1 - chance() / 2)


def _may_be_applied(result: Answer | Lost) -> bool:
    return result.reached if isinstance(result, Lost) else result.status not in _NOTHING_APPLIED


def _reason(result: Answer | Lost) -> str:
    return result.reason if isinstance(result, Lost) else f"{message_of(result)} (status {result.status})"
