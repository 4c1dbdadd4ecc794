"""When Python looks for circles of garbage among all objects, which stops the loop for up to a microsecond each.

On the short road nothing is left in circles: what ends is freed when the last reference to it goes. A full collection
finds nothing there, but Python starts one whenever there is a quarter more than at the last one, which is just while a
crowd of clients connects. So full collections are not left to Python: there is one when the connections that Hypercorn
served have left enough behind, and one an hour whatever happens. What lives shortly is collected as ever, in pieces.

Of connections that come and go soon the collections of what is young find nearly everything, of those that were open
for a while nothing. So what each one leaves is learnt from what the last collection found.

Invariants: (1) a full collection is due when a quarter of what lives, and at least `OBJECTS_MIN`, may have been left;
(2) full collections take at most 1 % of the time.
"""

import gc
import time
from typing import Final

import structlog
import trio

OBJECTS_MIN: Final = 10_000
LIVING_SHARE: Final = 0.25
SECONDS_MAX: Final = 3_600.0
# Counted with `gc.DEBUG_SAVEALL` after 200 connections that asked once and left: 181 each.
OBJECTS_A_CONNECTION_MAX: Final = 180
OBJECTS_A_CONNECTION_MIN: Final = 10
PAUSE: Final = 99
_PYTHONS: Final = gc.get_threshold()
_NEVER: Final = 1_000_000_000

_log = structlog.get_logger(__name__)


def freeze_what_is_loaded() -> None:
    """It stays; looking through all of it again at each full collection would stop the loop."""
    gc.collect()
    gc.freeze()


class FullCollections:
    """`run` for as long as connections are served."""

    def __init__(self) -> None:
        self._ended = 0
        self._objects_each = OBJECTS_A_CONNECTION_MAX
        self._due_at = OBJECTS_MIN
        self._due = trio.Event()

    def connection_ended(self) -> None:
        """A connection that Hypercorn has served is over."""
        self._ended += 1
        if self._ended * self._objects_each >= self._due_at:
            self._due.set()

    async def run(self) -> None:
        """Collect when it is due, until cancelled; then it is left to Python again."""
        gc.set_threshold(*_PYTHONS[:2], _NEVER)
        try:
            while True:
                with trio.move_on_after(SECONDS_MAX):
                    await self._due.wait()
                await trio.sleep(PAUSE * self._collect())
        finally:
            gc.set_threshold(*_PYTHONS)

    def _collect(self) -> float:
        """Returns the seconds that it took."""
        began = time.perf_counter()
        found = gc.collect()
        living = len(gc.get_objects())
        if self._ended:
            each = found // self._ended
            self._objects_each = min(OBJECTS_A_CONNECTION_MAX, max(OBJECTS_A_CONNECTION_MIN, each))
        self._ended, self._due = 0, trio.Event()
        self._due_at = max(OBJECTS_MIN, int(living * LIVING_SHARE))
        seconds = time.perf_counter() - began
        _log.debug("full garbage collection", found=found, living=living, seconds=round(seconds, 4))
        return seconds
