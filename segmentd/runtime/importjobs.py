"""All import jobs: in memory for whoever asks, on disk for the next start; with a mirror those of other nodes too.

Owns their order (what has begun is ended first, then the oldest), their number, and waiting for one to end. Whoever
looks sees all; what runs, waits, ends and is counted is of this node. Never changes a job itself.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import msgspec
import structlog
import trio

from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import Overloaded
from segmentd.runtime.importmirror import JobElsewhere, JobMirror, Mirrored
from segmentd.runtime.threads import in_thread
from segmentd.storage.importjobs import JobFolder

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0


class ImportJobs:
    """Plain calls on the loop's thread; what writes waits."""

    def __init__(
        self,
        folder: JobFolder,
        *,
        waiting_max: int,
        kept_max: int,
        retry_after_seconds: int,
        mirror: JobMirror | None = None,
    ) -> None:
        """mirror: of the jobs of all nodes, None where there is one node."""
        self.folder = folder
        self.watch: Callable[[ImportJob], None] | None = None
        """Told of each job whose state is saved, for traces; must not raise."""
        self._waiting_max = waiting_max
        self._kept_max = kept_max
        self._retry_after_seconds = retry_after_seconds
        self._jobs: dict[str, ImportJob] = {}
        self.mirrored = None if mirror is None else Mirrored(mirror, self._jobs)
        self._changed = trio.Condition()
        self._ending: set[str] = set()
        """Jobs that have ended, and a crash would have them run again: it is not on disk yet."""
        self.ended_states = dict.fromkeys(("completed", "failed", "cancelled"), 0)
        """How many jobs have ended since the start."""
        self.ended_rows = dict.fromkeys(("qualified", "disqualified", "unchanged", "rejected"), 0)
        """What those of them did that were no dry runs."""

    def load(self) -> None:
        """Take over the jobs of the folder, once, before everything else. Blocking. Raises OSError."""
        for job in self.folder.load():
            self._jobs[job.id] = job
            self._changed_here(job.id)

    def get(self, job_id: str) -> ImportJob | None:
        """The job of this node, None if there is none."""
        return self._jobs.get(job_id)

    async def elsewhere(self, job_id: str) -> JobElsewhere | None:
        """The job of another node, None if there is none. Raises StoreUnavailable, Overloaded."""
        return None if self.mirrored is None else await self.mirrored.find(job_id)

    def _everywhere(self) -> Mapping[str, ImportJob]:
        return self._jobs if self.mirrored is None else self.mirrored.jobs()

    def _changed_here(self, job_id: str) -> None:
        if self.mirrored is not None:
            self.mirrored.changed(job_id)

    def newest_first(self, before: str | None = None, audience_id: str | None = None) -> Iterator[ImportJob]:
        """All jobs of all nodes; those older than `before` (a job id), those of one audience."""
        return _newest_first(self._everywhere(), before, audience_id)

    def of_source(self, source: str) -> ImportJob | None:
        """The newest job of this node that came from `source`."""
        return next((job for job in _newest_first(self._jobs) if job.source == source), None)

    def last_completed(self, audience_id: str) -> ImportJob | None:
        """The import of an audience that says who its members are now: the one with the latest T."""
        done = (job for job in self.newest_first(audience_id=audience_id) if job.state == "completed")
        return max((job for job in done if not job.dry_run), key=lambda job: job.as_of_ms, default=None)

    def qualifying(self, audience_id: str) -> dict[int, str]:
        """The `v` that an import of the audience gives to whoever it lists → the id of its job; the newest wins."""
        # Also one that made nobody a member: they have its time now. In `checking` nothing is written.
        found = self.newest_first(audience_id=audience_id)
        jobs = [job for job in found if not job.dry_run and job.phase != "checking"]
        return {v_of(job.as_of_ms, True): job.id for job in reversed(jobs)}

    def deciding(self, audience_ids: Container[str]) -> dict[tuple[str, int], str]:
        """(audience, `v`) → the id of the import that gives this `v`, to the listed ones or to all others."""
        found: dict[tuple[str, int], str] = {}
        jobs = self._everywhere()
        for job_id in sorted(jobs):
            job = jobs[job_id]
            if job.audience_id in audience_ids and not job.dry_run and job.phase != "checking":
                listed = v_of(job.as_of_ms, True)
                found[job.audience_id, listed] = job.id
                # The tombstone of those who are not in the list is just below.
                found[job.audience_id, listed - 1] = job.id
        return found

    def check_room(self) -> None:
        """Raises Overloaded if too many jobs wait."""
        if sum(not job.is_ended for job in self._jobs.values()) >= self._waiting_max:
            raise Overloaded("Too many imports are waiting ([imports] jobs_waiting_max).", self._retry_after_seconds)

    async def add(self, job: ImportJob) -> None:
        """Take a new job, whose folder is made. Raises OSError; then there is none."""
        encoded = msgspec.json.encode(job)
        with trio.CancelScope(shield=True):
            await in_thread(self.folder.write, job.id, encoded)
            self._jobs[job.id] = job
            if self.mirrored is not None:
                await self.mirrored.taken(job.id)
            await self._tell()
            await self._prune()

    async def save(self, job: ImportJob) -> None:
        """Make the job's present state durable, however long it takes."""
        self._shown(job)
        await self._written(job)
        self._changed_here(job.id)

    async def end(self, job: ImportJob, **fields: Any) -> None:
        """End a job with these fields, and show them only when they are durable, however long it takes.

        A crash meanwhile repeats the job, perhaps with another end; nobody may have seen the first one by then.
        """
        self._ending.add(job.id)
        await self._written(msgspec.structs.replace(job, **fields))
        for name, value in fields.items():
            setattr(job, name, value)
        self._shown(job)
        self._changed_here(job.id)
        self._ending.discard(job.id)
        self._count(job)
        await self._tell()

    def _shown(self, job: ImportJob) -> None:
        if self.watch is not None:
            self.watch(job)

    async def _written(self, job: ImportJob) -> None:
        encoded = msgspec.json.encode(job)
        while True:
            try:
                await in_thread(self.folder.write, job.id, encoded)
                if job.is_ended:
                    await in_thread(self.folder.drop_staged, job.id)
            except OSError as error:
                log.error("an import job cannot be saved; trying again", job=job.id, reason=str(error))
                await trio.sleep(_RETRY_SECONDS)
            else:
                return

    def _count(self, job: ImportJob) -> None:
        self.ended_states[job.state] += 1
        for outcome in self.ended_rows:
            self.ended_rows[outcome] += 0 if job.dry_run else getattr(job, outcome)

    def present(self) -> tuple[int, int]:
        """How many jobs (run, wait)."""
        states = [job.state for job in self._jobs.values()]
        return states.count("running"), states.count("queued")

    def is_ending(self, job: ImportJob) -> bool:
        """Whether its end is decided, shown already or not."""
        return job.is_ended or job.id in self._ending

    async def next(self) -> ImportJob:
        """The job to run now, the one that a stop has interrupted or else the oldest; waits for one."""
        async with self._changed:
            while True:
                if waiting := [job for job in self._jobs.values() if not self.is_ending(job)]:
                    # An upload that began before the interrupted one may have ended after it: its job has the older id.
                    # If it ran in between, its floor could void what the interrupted one found when it was checked.
                    return min(waiting, key=lambda job: (job.state != "running", job.id))
                await self._changed.wait()

    async def ended(self, job: ImportJob) -> None:
        """Wait until a job has ended, durably."""
        async with self._changed:
            while not job.is_ended or job.id in self._ending:
                await self._changed.wait()

    async def settled(self) -> None:
        """Wait until every job that is there now has ended; then nothing that was staged before is on disk."""
        for job in list(self._jobs.values()):
            await self.ended(job)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _prune(self) -> None:
        surplus = len(self._jobs) - self._kept_max
        gone = [job_id for job_id in sorted(self._jobs) if self._jobs[job_id].is_ended][: max(0, surplus)]
        for job_id in gone:
            del self._jobs[job_id]
            self._changed_here(job_id)
            try:
                await in_thread(self.folder.remove, job_id)
            except OSError as error:
                # The next start finds it again, and it is again one too many.
                log.warning("an old import job remains until the next start", job=job_id, reason=str(error))


def _newest_first(
    jobs: Mapping[str, ImportJob], before: str | None = None, audience_id: str | None = None
) -> Iterator[ImportJob]:
    return (
        jobs[job_id]
        for job_id in sorted(jobs, reverse=True)
        if (before is None or job_id < before) and (audience_id is None or jobs[job_id].audience_id == audience_id)
    )
