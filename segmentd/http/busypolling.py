"""Busy polling: looking for the next request without sleep, where clients are too quick for it to pay.

A client that sends its next request as soon as it has its answer is back within some 50 µs. To sleep until then takes a
turn of the loop, two system calls, and the kernel's waking of a process on a core that has gone idle: more than the
answer itself. Owns the decision how long to look on. Where clients are slower it looks for nobody, so that waiting
takes no processor time.

Invariants: it ends `seconds_max` after the last answer, and `LOOKS_SECONDS_MAX` after it began, so that the loop gets
its turn however much is asked.
"""

import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

LOOKS_SECONDS_MAX: Final = 0.001
# Clients count as quick up to so many times `seconds_max`: to who sleeps they look slower by what the sleep takes.
_QUICK: Final = 4


class BusyPolling:
    """Tell it of every request and answer. seconds_max: after an answer; 0: never."""

    def __init__(self, seconds_max: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock: seconds. Not the loop's, which stands still in tests."""
        self._seconds_max = seconds_max
        self._clock = clock
        self._answered_at = -inf
        self._quick = False

    def asked(self) -> None:
        """Requests have come."""
        self._quick = self._clock() - self._answered_at < _QUICK * self._seconds_max

    def answered(self) -> None:
        """They have their answers."""
        self._answered_at = self._clock()

    def looks(self) -> Iterator[None]:
        """Look for requests each time, until this ends."""
        if not self._quick:
            return
        begun = now = self._clock()
        while now - self._answered_at < self._seconds_max and now - begun < LOOKS_SECONDS_MAX:
            yield
            now = self._clock()
