"""Busy polling: looking for the next request without sleep, where clients are too quick for it to pay.

A client that sends its next request as soon as it has its answer is back within some 50 µs. To sleep until then takes a
turn of the loop, two system calls, and the kernel's waking of a process on a core that has gone idle: more than the
answer itself. Owns the decision how long to look on. Where each client is slower, however many there are, it looks for
nobody.

Invariants: it ends `seconds_max` after the last answer, and `LOOKS_SECONDS_MAX` after it began, which is how long
anything else that the loop has to do may wait for it.
"""

import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

LOOKS_SECONDS_MAX: Final = 0.000_25
# Clients count as quick up to so many times `seconds_max`: to who sleeps they look slower by what the sleep takes.
_QUICK: Final = 4


class BusyPolling:
    """Tell it of requests that are answered on the spot. seconds_max: after an answer; 0: never."""

    def __init__(self, seconds_max: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """clock: seconds. Not the loop's, which stands still in tests."""
        self._seconds_max = seconds_max
        self.clock = clock
        self._answered_at = -inf
        self.quick = False
        """Whether one of the clients that asked last was back at once."""

    def asked(self, pause: float) -> None:
        """Requests have come, the quickest one `pause` seconds after the last answer to the same client."""
        self.quick = pause < _QUICK * self._seconds_max

    def answered(self) -> float:
        """They get their answers now, by the clock that is returned."""
        self._answered_at = self.clock()
        return self._answered_at

    def looks(self) -> Iterator[None]:
        """Look for requests each time, until this ends."""
        begun = now = self.clock()
        while self.quick and now - self._answered_at < self._seconds_max and now - begun < LOOKS_SECONDS_MAX:
            yield
            now = self.clock()
