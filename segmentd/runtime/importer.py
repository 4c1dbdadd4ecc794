"""The importer: runs import jobs one after the other, each from where it stands to its end.

    checking    compare list and members; refuse what looks like a mistake
    qualifying  the listed ones become qualified at T, slice by slice
    raising     the floor: qualifications from before T are void from here on
    sweeping    members that are not listed and older than T are disqualified

Invariants: (1) job.json is on disk before its phase begins, and every phase may be repeated, so a crash anywhere ends
in the same state; (2) the floor is raised only when all listed ones are visible, and the sweep looks only at an index
that holds everything from before the floor, so nobody who stays is ever seen outside, and nobody slips through; (3) up
to the floor a job may be cancelled, from there on it goes through.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import BinaryIO, Final, TypeVar

import structlog
import trio

from segmentd.domain.importjob import ImportJob, State
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import LimitReached
from segmentd.domain.wholelist import share_too_large
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.liststore import AudienceGoneError, Compared, ListStore, WholeList
from segmentd.runtime.threads import in_thread, patiently
from segmentd.storage.failpoints import hit
from segmentd.storage.importscan import swept_key

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SLICES_READ: Final = 8
"""Slices read from disk in one call; the job is saved at most so often."""
_SLICES_AHEAD: Final = 2
"""One is committed while the next one is prepared."""
_SAVE_SECONDS: Final = 0.5
# Where each phase begins on the way from 0 to 1; writing the listed ones is nearly all of it.
_CHECKED, _QUALIFIED, _RAISED = 0.05, 0.85, 0.9

T = TypeVar("T")


class NotDoneError(Exception):
    """The job ends here, for this reason, and nothing more is changed."""


class Importer:
    """An actor: `run` as its task, `cancel` from anywhere on the loop."""

    def __init__(
        self,
        jobs: ImportJobs,
        lists: ListStore,
        *,
        slice_changes: int,
        rejected_share_max: float,
    ) -> None:
        self._jobs = jobs
        self._lists = lists
        self._slice_changes = slice_changes
        self._rejected_share_max = rejected_share_max
        self._cancellable: tuple[str, trio.CancelScope] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            job = await self._jobs.next()
            await self._perform(job)

    async def cancel(self, job: ImportJob) -> bool:
        """End a job before its floor is raised; what is qualified by then stays. False if it is too late."""
        if job.state == "queued" and not self._jobs.is_ending(job):
            await self._end(job, "cancelled")
        elif self._cancellable is not None and self._cancellable[0] == job.id:
            self._cancellable[1].cancel()
        elif not self._jobs.is_ending(job):
            return False
        await self._jobs.ended(job)
        return job.state == "cancelled"

    async def _perform(self, job: ImportJob) -> None:
        log.info("import begins", job=job.id, audience=job.audience_id, phase=job.phase)
        job.state, job.started_ms, job.reason = "running", job.started_ms or _now_ms(), None
        try:
            if job.phase in {"checking", "qualifying"} and not await self._up_to_the_floor(job):
                return
            await self._from_the_floor_on(job)
        except (NotDoneError, AudienceGoneError, LimitReached) as ending:
            await self._end(job, "failed", str(ending))
        except OSError as error:
            # The list itself cannot be read any more, so there is nothing to go on with.
            log.error("import failed", job=job.id, reason=str(error))
            await self._end(job, "failed", f"The staged list cannot be read: {error.strerror}. Send it again.")

    async def _up_to_the_floor(self, job: ImportJob) -> bool:
        """Everything that can be cancelled; False if the job has ended."""
        done = False
        with trio.CancelScope() as scope:
            self._cancellable = (job.id, scope)
            try:
                await self._jobs.save(job)
                if job.phase == "checking":
                    await self._check(job)
                done = job.is_ended or await patiently(lambda: self._qualify(job), "an import")
            finally:
                self._cancellable = None
        if not done and not job.is_ended:
            await self._end(job, "cancelled")
        return not job.is_ended

    async def _from_the_floor_on(self, job: ImportJob) -> None:
        number = await self._number(job)
        if job.phase != "sweeping":
            job.phase, job.progress = "raising", _QUALIFIED
            await self._jobs.save(job)
            await self._lists.raise_floor(number, job.as_of_ms)
            hit("import_raising")
            job.phase, job.progress = "sweeping", _RAISED
            await self._jobs.save(job)
        await patiently(lambda: self._sweep(job, number), "an import")
        await self._require_number(job, number)
        await self._end(job, "completed")

    async def _check(self, job: ImportJob) -> None:
        """Raises NotDoneError; may end the job."""
        if share_too_large(job.rejected, job.rows, self._rejected_share_max):
            raise NotDoneError(
                f"{job.rejected} of {job.rows} rows are rejected, more than {self._rejected_share_max:.4g} of all"
                " ([imports] rejected_share_max); nothing was changed."
            )
        if not job.distinct:
            raise NotDoneError("All of its rows are rejected; an empty list never empties an audience.")
        if await self._lists.floor(job.audience_id) > v_of(job.as_of_ms, True):
            await self._end(job, "completed", "Superseded by a later import or deletion; nothing was changed.")
            return
        number = await self._lists.number(job.audience_id)
        found = Compared()
        if number is not None:
            found = await self._lists.compare(self._list(job, number), None)
            await self._require_number(job, number)
        if not job.force and share_too_large(found.outdated, found.members, job.max_shrink):
            raise NotDoneError(
                f"It would disqualify {found.outdated} of {found.members} members, more than max_shrink ="
                f" {job.max_shrink:.4g} of them; nothing was changed. If that is meant, force it (force=true, --force,"
                " force/)."
            )
        job.to_sweep, job.phase, job.progress = found.outdated, "qualifying", _CHECKED
        await self._jobs.save(job)

    async def _qualify(self, job: ImportJob) -> bool:
        """Qualify the listed ones from the cursor on; True when all are visible. Raises LimitReached."""
        listed = self._list(job, await self._numbered(job))
        size = listed.staged.stat().st_size
        saved = trio.current_time()
        with listed.staged.open("rb", 1 << 18) as staged:
            staged.seek(job.cursor)
            while lines := await _read_lines(staged, self._slice_changes * _SLICES_READ):
                await self._qualify_some(job, lines, listed)
                job.cursor += sum(map(len, lines))
                job.progress = _CHECKED + (_QUALIFIED - _CHECKED) * job.cursor / size
                if trio.current_time() - saved > _SAVE_SECONDS:
                    await self._jobs.save(job)
                    saved = trio.current_time()
        if job.dry_run:
            job.disqualified = job.to_sweep
            await self._end(job, "completed", "Dry run; nothing was changed.")
        return True

    async def _qualify_some(self, job: ImportJob, lines: list[bytes], listed: WholeList) -> None:
        """Returns when all of them are visible."""
        prefix = bytes([job.kind_number])
        ahead = trio.CapacityLimiter(_SLICES_AHEAD)

        async def write(some: list[bytes]) -> None:
            async with ahead:
                keys = [prefix + line[:-1] for line in some]
                qualified = await self._lists.qualify(listed, keys, dry_run=job.dry_run)
                job.qualified += qualified
                job.unchanged += len(keys) - qualified

        await _all(write, _slices(lines, self._slice_changes))

    async def _sweep(self, job: ImportJob, number: int) -> None:
        """Disqualify members that are not listed and older than the import."""
        listed = self._list(job, number)
        if job.sweep is None:
            name = f"sweep-{time.time_ns():x}"
            found = await self._lists.compare(listed, self._jobs.folder.sweep(job.id, name))
            job.sweep, job.to_sweep = name, found.outdated
            await self._jobs.save(job)
        # From its beginning, also after a crash: those that were swept are told from the others, and counted.
        job.disqualified = done = 0
        with self._jobs.folder.sweep(job.id, job.sweep).open("rb", 1 << 18) as sweep:
            while lines := await _read_lines(sweep, self._slice_changes):
                job.disqualified += await self._lists.disqualify(listed, [swept_key(line) for line in lines])
                done += len(lines)
                job.progress = _RAISED + (1 - _RAISED) * done / job.to_sweep
                await trio.lowlevel.checkpoint()

    def _list(self, job: ImportJob, number: int | None) -> WholeList:
        staged = self._jobs.folder.staged(job.id)
        return WholeList(job.audience_id, number, job.as_of_ms, job.created_ms, job.kind_number, staged)

    async def _end(self, job: ImportJob, state: State, reason: str | None = None) -> None:
        progress = 1.0 if state == "completed" else job.progress
        log.info("import ended", job=job.id, audience=job.audience_id, state=state, reason=reason)
        with trio.CancelScope(shield=True):
            await self._jobs.end(job, state=state, reason=reason, finished_ms=_now_ms(), progress=progress)

    async def _number(self, job: ImportJob) -> int:
        number = await self._lists.number(job.audience_id)
        if number is None or job.audience_number not in {None, number}:
            raise AudienceGoneError
        return number

    async def _numbered(self, job: ImportJob) -> int | None:
        """The audience's number, which must stay; None for a dry run without one.

        Raises AudienceGoneError, LimitReached.
        """
        if job.cursor:
            return None if job.dry_run and job.audience_number is None else await self._number(job)
        # From the beginning, so a number that a crash took away before anything was written is no matter.
        lists, audience_id = self._lists, job.audience_id
        number = await (lists.number(audience_id) if job.dry_run else lists.numbered(audience_id))
        if await lists.floor(audience_id) > v_of(job.as_of_ms, True):
            raise AudienceGoneError
        job.audience_number, job.qualified, job.unchanged = number, 0, 0
        return number

    async def _require_number(self, job: ImportJob, number: int) -> None:
        if await self._number(job) != number:
            raise AudienceGoneError


async def _read_lines(file: BinaryIO, count: int) -> list[bytes]:
    return await in_thread(lambda: list(islice(file, count)))


def _slices(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


async def _all(act: Callable[[T], Awaitable[None]], each: Iterator[T]) -> None:
    """Act on all at once; the first exception comes out as it is."""
    failed: list[Exception] = []

    async def one(work: T) -> None:
        try:
            await act(work)
        except (AudienceGoneError, LimitReached) as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for work in each:
            nursery.start_soon(one, work)
    if failed:
        raise failed[0]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
