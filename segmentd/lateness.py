"""The event loop's lateness: how long after its time a task that waits gets its turn.

Owns the sampling. It is what every request suffers when something holds the loop: a long computation, the garbage
collector, another thread with the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

SAMPLE_SECONDS: Final = 0.1


async def sample(observe: Callable[[float], None]) -> None:
    """Tell `observe` of the loop's lateness in seconds, every `SAMPLE_SECONDS`, until cancelled."""
    while True:
        due = trio.current_time() + SAMPLE_SECONDS
        await trio.sleep_until(due)
        observe(trio.current_time() - due)
