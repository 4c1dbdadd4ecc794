"""Import jobs of other nodes, for whoever asks this one.

A job belongs to the node that took its list: there it is on disk, runs and is cancelled. A mirror is a place that all
nodes see. This module has word of our jobs there, and theirs here; without a mirror there is one node.

Invariants: (1) a job never waits for the mirror, but for a moment when it is taken, so that its id is known everywhere
by the time that the client learns it; (2) what could not be told is told later, and after a start everything is told
anew, so what was lost of the mirror comes back; (3) jobs of others are looked at and nothing else.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog
import trio

from segmentd.domain.importjob import ImportJob
from segmentd.domain.refusals import Refusal

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.5
"""What happens on one node is seen on every other within a second."""
TAKEN_SECONDS_MAX: Final = 1.0
"""A mirror that cannot be reached now does not hold up an upload for longer."""


class JobElsewhere(msgspec.Struct, frozen=True):
    """A job of another node."""

    job: ImportJob
    node: str
    """What people call the node."""


class JobMirror(Protocol):
    """Where jobs of all nodes are; the implementation knows which node it belongs to. All raise StoreUnavailable,
    Overloaded.
    """

    async def save(self, jobs: Sequence[ImportJob]) -> None:
        """Have these jobs of this node as they are when this is called."""

    async def remove(self, job_ids: Sequence[str]) -> None:
        """Have these jobs of this node no more; what is not there is no error."""

    async def saved(self) -> Sequence[str]:
        """The ids of the jobs that this node has there."""

    async def get(self, job_id: str) -> JobElsewhere | None:
        """A job of another node, as of now."""

    async def load(self) -> Sequence[JobElsewhere]:
        """All jobs of other nodes."""


class Mirrored:
    """Our side of the mirror; `run` is a task."""

    def __init__(self, mirror: JobMirror, ours: Mapping[str, ImportJob]) -> None:
        """ours: the jobs of this node by id, as they are at any time."""
        self._mirror = mirror
        self._ours = ours
        self._untold: dict[str, None] = {}
        """Ids of our jobs that have changed, or are gone, since they were told."""
        self._theirs: dict[str, JobElsewhere] = {}
        self._telling = trio.Lock()
        """What is older must not come after what is newer."""
        self._is_compared = False
        """Whether jobs that are there, and not here any more, were looked for since the start."""
        self._problem: str | None = None

    def changed(self, job_id: str) -> None:
        """Tell of this job, or that it is gone, at the next turn."""
        self._untold[job_id] = None

    async def taken(self, job_id: str) -> None:
        """Tell of a new job at once; later, if the mirror cannot be reached in a moment."""
        self.changed(job_id)
        with trio.move_on_after(TAKEN_SECONDS_MAX):
            await self._in_vain_or_not(self._tell)

    def jobs(self) -> dict[str, ImportJob]:
        """All jobs, ours and those of others, by id."""
        return {job_id: elsewhere.job for job_id, elsewhere in self._theirs.items()} | dict(self._ours)

    async def find(self, job_id: str) -> JobElsewhere | None:
        """A job of another node as it is now. Raises StoreUnavailable, Overloaded."""
        return await self._mirror.get(job_id)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._in_vain_or_not(self._turn)
            await trio.sleep(LOOK_SECONDS)

    async def _turn(self) -> None:
        if not self._is_compared:
            self._untold |= {job_id: None for job_id in await self._mirror.saved() if job_id not in self._ours}
            self._is_compared = True
        # The progress of one that runs is not saved each time.
        self._untold |= {job.id: None for job in self._ours.values() if job.state == "running"}
        await self._tell()
        theirs = await self._mirror.load()
        self._theirs = {elsewhere.job.id: elsewhere for elsewhere in theirs if elsewhere.job.id not in self._ours}

    async def _tell(self) -> None:
        async with self._telling:
            untold, self._untold = self._untold, {}
            try:
                if jobs := [self._ours[job_id] for job_id in untold if job_id in self._ours]:
                    await self._mirror.save(jobs)
                if gone := [job_id for job_id in untold if job_id not in self._ours]:
                    await self._mirror.remove(gone)
            except (Refusal, trio.Cancelled):
                self._untold = untold | self._untold
                raise

    async def _in_vain_or_not(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it if the mirror can be reached; what is wrong is told once."""
        try:
            await act()
        except Refusal as refusal:
            if refusal.message != self._problem:
                log.warning("imports of other nodes cannot be seen, nor ours by them", reason=refusal.message)
            self._problem = refusal.message
        else:
            if self._problem is not None:
                log.info("imports of other nodes are seen again")
            self._problem = None
