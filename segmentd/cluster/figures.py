"""Figures of the whole cluster for /metrics and people, counted now and then. Nothing is decided by them."""

from collections.abc import Iterable, Sequence
from itertools import chain

import structlog
import trio

from segmentd.cluster.audiences import Audiences
from segmentd.cluster.batches import job_of
from segmentd.cluster.connected import Connected
from segmentd.cluster.reads import Reads
from segmentd.domain.refusals import Unavailable
from segmentd.runtime.seam import AudienceFacts

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Figures:
    """An actor: `run` as a task. Answers at once, as of the last count."""

    def __init__(self, connected: Connected, audiences: Audiences, reads: Reads, seconds: float) -> None:
        """seconds: between two counts."""
        self._connected = connected
        self._audiences = audiences
        self._reads = reads
        self._seconds = seconds
        self.identifiers = 0
        """Identifiers with at least one membership."""
        self.memberships = 0
        """Latest decisions held, disqualified ones included."""
        self._asked: list[str] = []
        self._facts: list[AudienceFacts] = []

    def audiences_count(self) -> int:
        """How many audiences there are."""
        return len(self._audiences)

    def fresh(self, first: Iterable[str], audiences_max: int) -> Sequence[AudienceFacts]:
        """How fresh at most so many audiences are: those of `first`, then others, as of the last count."""
        wanted = dict.fromkeys(chain(first, self._audiences.ids()))
        self._asked = list(wanted)[:audiences_max]
        return self._facts[:audiences_max]

    async def run(self) -> None:
        """Until cancelled."""
        failing = False
        while True:
            try:
                self.identifiers, self.memberships = await self._counted()
                self._facts = await self._reads.facts(self._asked)
                failing = False
            except Unavailable as refusal:
                if not failing:
                    log.warning("the cluster cannot be counted; metrics show what was", reason=refusal.message)
                failing = True
            await trio.sleep(self._seconds)

    async def _counted(self) -> tuple[int, int]:
        space = self._connected.keyspace
        deadline = trio.current_time() + self._seconds
        jobs = [
            job_of(slot, [(b"HMGET", space.counts[partition], b"n", b"m")], deadline)
            for partition, slot in enumerate(space.slots)
        ]
        for job in jobs:
            self._connected.reads.submit(job)
        answers = [(await job.reply.wait())[0] for job in jobs]
        return sum(int(users or 0) for users, _ in answers), sum(int(held or 0) for _, held in answers)
