"""Uploads: a file of members on its way in, from its first byte to a job that is on disk.

Owns the conversation with the stager, a child process. Invariants: (1) the file is never in memory: a chunk is taken
when the child has read the one before; (2) whatever goes wrong before the job is on disk leaves nothing behind.
"""

import errno
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import structlog
import trio

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.importjob import Form, ImportJob
from segmentd.domain.refusals import Overloaded, StoreUnavailable
from segmentd.domain.wholelist import UnreadableFile
from segmentd.runtime.children import Child, ChildDiedError, ChildNotStartedError, child
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.threads import in_thread
from segmentd.settings import ImportsSettings
from segmentd.storage.importjobs import new_job_id
from segmentd.storage.stager import StagerArguments, StagingReport

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Chunks = AsyncIterator[bytes]
FILE_CHUNK_BYTES: Final = 1 << 18


class StagerDiedError(StoreUnavailable):
    """The process that reads the file died over it, or for want of memory; it may go well the next time."""


class ImportWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for besides the file. Each is valid on its own; `as_of_ms` is not in the future."""

    audience_id: str
    source: str
    form: Form = "auto"
    gzip: bool = False
    """The file must be gzip; otherwise its first bytes tell."""
    identifier: str | None = None
    as_of_ms: int | None = None
    began_ms: int | None = None
    """The time of a file that does not say one; None: now."""
    dry_run: bool = False
    force: bool = False
    max_shrink: float | None = None


class ImportUploads:
    """Takes uploads, several at the same time."""

    def __init__(
        self,
        jobs: ImportJobs,
        schema: IdentifierSchema,
        settings: ImportsSettings,
        *,
        future_seconds_max: int,
        retry_after_seconds: int,
        clock: Callable[[], float],
    ) -> None:
        """clock: seconds since the epoch."""
        self._jobs = jobs
        self._schema = schema
        self._settings = settings
        self._future_ms_max = future_seconds_max * 1000
        self._retry_after_seconds = retry_after_seconds
        self._clock = clock
        self._running = 0

    async def take(self, wish: ImportWish, chunks: Chunks) -> ImportJob:
        """Stage a file and make it a job; when this returns, the job is on disk and will be done.

        Raises UnreadableFile, Overloaded, StoreUnavailable, and whatever `chunks` raises; then nothing was changed.
        """
        if self._running >= self._settings.uploads_running_max:
            raise Overloaded("Too many uploads are running ([imports] uploads_running_max).", self._retry_after_seconds)
        self._jobs.check_room()
        self._running += 1
        job_id = new_job_id()
        taken = False
        try:
            job = await self._staged(job_id, wish, chunks)
            await self._jobs.add(job)
            taken = True
        except (ChildDiedError, OSError) as error:
            log.error("an upload could not be staged", source=wish.source, reason=str(error))
            died = isinstance(error, ChildDiedError) and not isinstance(error, ChildNotStartedError)
            kind = StagerDiedError if died else StoreUnavailable
            reason = error.strerror if isinstance(error, OSError) else None
            message = f"The file could not be staged: {reason or 'see the log'}."
            raise kind(message, self._retry_after_seconds) from error
        finally:
            self._running -= 1
            if not taken:
                await self._remove(job_id)
        return job

    async def _remove(self, job_id: str) -> None:
        """Leave nothing of what was not taken; what cannot be removed now, the next start removes."""
        with trio.CancelScope(shield=True):
            try:
                await in_thread(self._jobs.folder.remove, job_id)
            except OSError as error:
                log.warning("what was staged of an upload remains until the next start", reason=str(error))

    async def _staged(self, job_id: str, wish: ImportWish, chunks: Chunks) -> ImportJob:
        now_ms = int(self._clock() * 1000)
        await in_thread(self._jobs.folder.make, job_id)
        report = await self._stage(self._arguments(job_id, wish, now_ms), chunks)
        if report.error is not None:
            raise UnreadableFile(report.error, report.error_line)
        if report.disk_error is not None:
            raise OSError(errno.EIO, report.disk_error)
        began_ms = now_ms if wish.began_ms is None else min(wish.began_ms, now_ms)
        as_of_ms = next(ms for ms in (wish.as_of_ms, report.latest_ts_ms, began_ms) if ms is not None)
        return ImportJob(
            id=job_id,
            audience_id=wish.audience_id,
            as_of_ms=as_of_ms,
            identifier=report.identifier or "",
            kind_number=report.kind_number,
            source=wish.source,
            dry_run=wish.dry_run,
            force=wish.force,
            max_shrink=self._settings.shrink_share_max if wish.max_shrink is None else wish.max_shrink,
            rows=report.rows,
            distinct=report.distinct,
            rejected=report.rejected,
            rejects=report.rejects,
            created_ms=now_ms,
        )

    def _arguments(self, job_id: str, wish: ImportWish, now_ms: int) -> StagerArguments:
        settings = self._settings
        return StagerArguments(
            path=str(self._jobs.folder.staged(job_id).resolve()),
            audience_id=wish.audience_id,
            kinds=list(self._schema.kinds.values()),
            value_bytes_max=self._schema.value_bytes_max,
            ts_ms_max=now_ms + self._future_ms_max,
            form=wish.form,
            gzip=wish.gzip,
            identifier=wish.identifier,
            line_bytes_max=settings.line_bytes_max,
            rows_max=settings.rows_max,
            rejects_listed_max=settings.rejects_listed_max,
        )

    async def _stage(self, arguments: StagerArguments, chunks: Chunks) -> StagingReport:
        """The stager's last report; with one of the errors, `chunks` was not read to its end. Raises ChildDiedError."""
        failed: list[Exception] = []
        report = StagingReport()
        async with child("segmentd.storage.stager", arguments) as stager:
            async with trio.open_nursery() as nursery:

                async def feed() -> None:
                    try:
                        await _feed(stager, chunks)
                    except Exception as error:  # noqa: BLE001  # raised again outside, as it is
                        failed.append(error)
                        nursery.cancel_scope.cancel()

                nursery.start_soon(feed)
                try:
                    while not report.done and report.error is None and report.disk_error is None:
                        report = await stager.answer(StagingReport)
                except ChildDiedError as error:
                    failed.append(error)
                nursery.cancel_scope.cancel()
            if failed:
                raise failed[0]
        return report


async def _feed(stager: Child, chunks: Chunks) -> None:
    async for chunk in chunks:
        if not await stager.send(chunk):
            return
    await stager.end_input()
