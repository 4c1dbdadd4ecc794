"""Forgetting identifiers: at once for whoever looks, and then for good.

A request is noted on disk without its identifiers, the identifiers are dropped through the committer, and only then is
it answered: from that moment no query shows them and no older event brings them back. What is left are bytes: in
journal records, in pages of the index, in lists that imports have staged. So the request is complete when every import
that was staged by then has ended, which drops its list, and a scrub has run after that.

Nothing here needs to know the identifiers again, so after a crash all that is open is simply scrubbed. A request whose
client has gone is carried out all the same. After a commit with an unknown outcome, and after a scrub that failed
halfway, nothing is written until a restart: what is open waits for it, and the log says so once.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog
import trio

from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.refusals import Refusal, StoreUnavailable
from segmentd.runtime.forgetnotes import ForgetNotes
from segmentd.runtime.scrubbing import ScrubFailedError
from segmentd.storage.errors import StorageError
from segmentd.storage.forgetjobs import new_request_id

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_STAGED_POLL_SECONDS = 1.0
_RETRY_SECONDS_FIRST = 5.0
_RETRY_SECONDS_MAX = 60.0
_OUTCOME_SECONDS_MAX = 10.0
"""A commit is answered in milliseconds; a committer that died by a defect never answers."""


class _OutcomeUnknownError(Exception):
    """Whether the identifiers were forgotten will show after a restart."""


class ForgetsAndScrubs(Protocol):
    """The part of the store that this needs."""

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None: ...
    async def scrub(self) -> None: ...
    def failure(self) -> str | None: ...


class ForgetStatus(NamedTuple):
    """What is told of a request. problem: why it is not complete although its time has come, if that is known here."""

    job: ForgetJob
    problem: str | None


class Forgetting:
    """`request` and `get` from anywhere on the loop, `run` as a task."""

    def __init__(
        self,
        store: ForgetsAndScrubs,
        notes: ForgetNotes,
        *,
        scrub_seconds_min: float,
        jobs_kept_max: int,
        retry_after_seconds: int,
    ) -> None:
        """scrub_seconds_min: from the end of one scrub to the beginning of the next."""
        self._store = store
        self._notes = notes
        self._scrub_seconds_min = scrub_seconds_min
        self._jobs_kept_max = jobs_kept_max
        self._retry_after_seconds = retry_after_seconds
        self._jobs: dict[str, ForgetJob] = {}
        self._unanswered: list[str] = []
        self._wake = trio.Event()
        self._retry_seconds = _RETRY_SECONDS_FIRST
        self.problem: str | None = None
        """Why what is open is not complete although its time has come, or None."""

    async def load(self) -> None:
        """Take over the requests that were noted, before `run`. Raises what `ForgetNotes.load` raises."""
        jobs = await self._notes.load()
        # One that was never answered: if it was carried out, the scrub that follows every start with any cleans up.
        self._unanswered = [job.id for job in jobs if job.state == "taking"]
        self._jobs = {job.id: job for job in jobs}
        self._wake.set()

    def get(self, request_id: str) -> ForgetJob | None:
        """The request of this node, None if there is none or it is not kept any more."""
        return _taken(self._jobs.get(request_id))

    async def find(self, request_id: str) -> ForgetStatus | None:
        """The request, of whichever node. Raises StoreUnavailable, Overloaded."""
        job = self.get(request_id)
        if job is not None:
            return ForgetStatus(job, None if job.state == "completed" else self.problem)
        job = _taken(await self._notes.elsewhere(request_id))
        return None if job is None else ForgetStatus(job, None)

    async def request(self, law: str, keys: list[bytes], now_ms: int) -> ForgetJob:
        """Forget, durably and visibly. Raises what `MembershipStore.forget` raises; the client shall try again then."""
        job = ForgetJob(new_request_id(), law, "taking", now_ms, len(keys))
        await self._save(job)
        try:
            if keys:
                await self._forget(keys, now_ms)
        except _OutcomeUnknownError as error:
            # The note stays: if it was carried out, the next scrub or the next start cleans up.
            self._unanswered.append(job.id)
            raise StoreUnavailable(str(error), self._retry_after_seconds) from error
        except Refusal:
            await self._take_back(job)
            raise
        job = msgspec.structs.replace(job, state="in_progress")
        try:
            await self._save(job)
        except StoreUnavailable:
            # It was carried out, and nobody learns its id: it is cleaned up like one that a crash left unanswered.
            self._unanswered.append(job.id)
            self._wake.set()
            raise
        self._wake.set()
        return job

    async def _take_back(self, job: ForgetJob) -> None:
        """Nothing was forgotten, so its note goes; one that cannot be removed now goes with the next scrub."""
        with trio.CancelScope(shield=True):
            try:
                await self._notes.remove(job.id)
            except (OSError, Refusal) as error:
                log.warning("the note of a refused request to forget remains for now", reason=str(error))
                self._unanswered.append(job.id)
                return
        self._jobs.pop(job.id, None)

    async def _forget(self, keys: list[bytes], now_ms: int) -> None:
        """Raises _OutcomeUnknownError; Refusal, then nothing was forgotten."""
        # What the committer has taken is carried out, whether its client waits for it or not.
        with trio.move_on_after(_OUTCOME_SECONDS_MAX, shield=True):
            try:
                await self._store.forget(keys, now_ms)
            except StoreUnavailable as refusal:
                if self._store.failure() is None:
                    raise
                raise _OutcomeUnknownError(refusal.message) from refusal
            return
        raise _OutcomeUnknownError("The store does not answer.")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._complete_all()

    async def _complete_all(self) -> None:
        """Complete everything that is open now."""
        # One that is being taken now may be forgotten after the scrub has begun; it wakes this task again.
        waiting = [job for job in self._jobs.values() if job.state == "in_progress" or job.id in self._unanswered]
        if not waiting:
            return
        try:
            await self._imports_ended()
            await self._store.scrub()
            for job in waiting:
                await self._end(job)
            await self._prune()
        except (ScrubFailedError, StorageError, Refusal, OSError) as error:
            await self._put_off(str(error))
            return
        self.problem, self._retry_seconds = None, _RETRY_SECONDS_FIRST
        log.info("forgotten for good", requests=len(waiting))
        await trio.sleep(self._scrub_seconds_min)

    async def _put_off(self, reason: str) -> None:
        """Wait until it may be tried again; for ever if only a restart helps."""
        failure = self._store.failure()
        if failure is not None:
            self.problem = f"It goes on after a restart: {failure}"
            log.error("forgetting is not complete; it goes on after a restart", reason=failure)
            await trio.sleep_forever()
        if reason != self.problem:
            log.error("forgetting is not complete; trying again until it is", reason=reason)
        self.problem = reason
        self._wake.set()
        await trio.sleep(self._retry_seconds)
        self._retry_seconds = min(2 * self._retry_seconds, _RETRY_SECONDS_MAX)

    async def _imports_ended(self) -> None:
        """Wait until no list is left of those that are staged now."""
        staged = await self._notes.staged_imports()
        while staged:
            await trio.sleep(_STAGED_POLL_SECONDS)
            staged &= await self._notes.staged_imports()

    async def _end(self, job: ForgetJob) -> None:
        if job.id in self._unanswered:
            await self._notes.remove(job.id)
            self._unanswered.remove(job.id)
            self._jobs.pop(job.id, None)
        else:
            await self._save(msgspec.structs.replace(job, state="completed", completed_ms=_now_ms()))

    async def _prune(self) -> None:
        """Drop the oldest completed requests that are too many."""
        completed = sorted(job.id for job in self._jobs.values() if job.state == "completed")
        for job_id in completed[: max(0, len(self._jobs) - self._jobs_kept_max)]:
            await self._notes.remove(job_id)
            del self._jobs[job_id]

    async def _save(self, job: ForgetJob) -> None:
        with trio.CancelScope(shield=True):
            try:
                await self._notes.write(job)
            except OSError as error:
                raise StoreUnavailable(
                    f"The request cannot be noted: {error.strerror or error}.", self._retry_after_seconds
                ) from error
            self._jobs[job.id] = job


def _taken(job: ForgetJob | None) -> ForgetJob | None:
    """The request, if somebody was answered."""
    return None if job is None or job.state == "taking" else job


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
