"""LMDB's readers: those of dead processes are cleared, those that hold a snapshot for long are noticed.

Owns the looking. Ends nobody: an export of millions of members may read for minutes, and that is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, Protocol

import structlog
import trio

from segmentd.storage.readers import Reader

LOOK_SECONDS: Final = 5.0
# A follower holds its snapshot for one answer, a page of members takes milliseconds.
LONG_SECONDS: Final = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Environment(Protocol):
    """What this needs of journal and index."""

    def reader_check(self) -> int:
        """Clear reader slots of processes that died; returns how many."""

    def readers(self) -> Sequence[Reader]:
        """Who holds a snapshot now."""


class ReaderWatch:
    """Looks at the readers of some environments."""

    def __init__(self) -> None:
        self._since: dict[Reader, float] = {}
        self._told: set[Reader] = set()
        self.long = 0
        """Readers that have held a snapshot for more than `LONG_SECONDS`."""

    async def run(self, environments: Sequence[Environment]) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.look(environments, trio.current_time())

    def look(self, environments: Sequence[Environment], now: float) -> None:
        """Look once. now: seconds, never going back."""
        cleared = sum(environment.reader_check() for environment in environments)
        if cleared:
            log.info("cleared readers of processes that died", readers=cleared)
        readers = chain.from_iterable(environment.readers() for environment in environments)
        self._since = {reader: self._since.get(reader, now) for reader in readers}
        long = {reader for reader, since in self._since.items() if now - since > LONG_SECONDS}
        for reader in long - self._told:
            log.warning(
                "a reader holds a snapshot for long; files grow meanwhile",
                environment=reader.environment,
                pid=reader.pid,
                seconds=round(now - self._since[reader]),
            )
        self._told, self.long = long, len(long)
