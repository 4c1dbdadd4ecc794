"""Figures of the whole cluster for /metrics and people, counted now and then. Nothing is decided by them."""

import structlog
import trio

from segmentd.cluster.batches import job_of
from segmentd.cluster.connected import Connected
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Figures:
    """An actor: `run` as a task."""

    def __init__(self, connected: Connected, seconds: float) -> None:
        """seconds: between two counts."""
        self._connected = connected
        self._seconds = seconds
        self.identifiers = 0
        """Identifiers with at least one membership, as of the last count."""
        self.memberships = 0
        """Latest decisions held, disqualified ones included, likewise."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.identifiers, self.memberships = await self._counted()
            except StoreUnavailable as refusal:
                log.warning("the cluster could not be counted", reason=refusal.message)
            await trio.sleep(self._seconds)

    async def _counted(self) -> tuple[int, int]:
        space = self._connected.keyspace
        jobs = [
            job_of(slot, [(b"HMGET", space.counts[partition], b"n", b"m")], trio.current_time() + self._seconds)
            for partition, slot in enumerate(space.slots)
        ]
        for job in jobs:
            self._connected.reads.submit(job)
        answers = [(await job.reply.wait())[0] for job in jobs]
        return sum(int(users or 0) for users, _ in answers), sum(int(held or 0) for _, held in answers)
