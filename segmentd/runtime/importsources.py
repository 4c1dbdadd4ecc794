"""Files that are fetched instead of sent: what all sources have in common.

A source gives each file a name that stands for its very content (name, time, size or tag). So a file whose import
was taken before a restart is found again and not imported twice, and one whose import was not taken is begun anew. A
job that has ended answers for its file only where a crash came before the file was put away; whoever puts a file in
once more wants it imported once more.

A file in the folder `FORCED` of a source is forced: its import may disqualify however many it takes.

Invariants: (1) what is wrong with one file is told by its name and holds up no other one; (2) it is told once, and
again only when it changes or comes back.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
import structlog
import trio

from segmentd.domain.events import EventRules
from segmentd.domain.importjob import ImportJob
from segmentd.domain.refusals import Unavailable
from segmentd.domain.wholelist import UnreadableFile, audience_id_of
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.importuploads import FILE_CHUNK_BYTES, ImportUploads, ImportWish, StagerDiedError
from segmentd.runtime.threads import in_thread

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FORCED: Final = "force"
"""An audience's id has no slash, so a folder cannot be taken for a part of one; and a rename into it is one step."""
_BUSY_SECONDS = 1.0
_STUCK_MAX = 10_000


class Found(msgspec.Struct, frozen=True):
    """A file at a source. changed_ms: when it was last written; its T, if it says none itself."""

    name: str
    source: str
    changed_ms: int
    force: bool = False


class Delivery(msgspec.Struct, frozen=True):
    """What became of a file: its job, or why there is none."""

    job: ImportJob | None = None
    reason: str | None = None
    line: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether the list was imported."""
        return self.job is not None and self.job.state == "completed"

    def report(self) -> bytes:
        """JSON for whoever put the file there."""
        shown: dict[str, Any] = {"reason": self.reason, "line": self.line}
        if self.job is not None:
            names = ("id", "audience_id", "state", "rows", "qualified", "disqualified", "unchanged", "rejected")
            shown = {name: getattr(self.job, name) for name in names}
            shown |= {"as_of": self.job.as_of_ms / 1000, "rejects": self.job.rejects, "reason": self.job.reason}
        return msgspec.json.format(msgspec.json.encode(shown), indent=2)


class NotNowError(Exception):
    """A file cannot be read at this time, or is gone; what is there at the next look is tried again."""


class _CannotBeReadError(Exception):
    """Reading a file failed, and will again."""


Opened = Callable[[], AsyncIterator[bytes]]
"""Gives the bytes of a file from the beginning, each time. May raise NotNowError; any other exception is its end."""


class Importing:
    """Takes the files of one source, one at a time."""

    def __init__(self, uploads: ImportUploads, jobs: ImportJobs, rules: EventRules, *, tries_max: int) -> None:
        """tries_max: how often a file is read that kills the process which reads it."""
        self._uploads = uploads
        self._jobs = jobs
        self._rules = rules
        self._tries_max = tries_max
        self._told: dict[str, str] = {}
        """place → what was told of it and is not known to be over."""
        self._stuck: dict[str, Delivery | None] = {}
        """Files that are where they were, though they were tried: what is decided about them, None if nothing is."""
        self.failures = 0
        """How often a file could not be read or put away, or the source not be used."""

    async def handle(
        self, found: Found, opened: Opened, put_away: Callable[[Delivery], None], *, resumed: bool = False
    ) -> None:
        """Import a file and put it away (blocking, may raise anything). resumed: see `deliver`."""
        delivery = self._stuck.get(found.source)
        try:
            if delivery is None:
                delivery = await self.deliver(found, opened, resumed=resumed)
            await in_thread(put_away, delivery)
        # Clients of stores raise what they like; one file must not end the server, nor stop the others.
        except Exception as error:  # noqa: BLE001
            self._stay(found, delivery, error)
        else:
            self._stuck.pop(found.source, None)
            self.works(found.source)
            log.info("a fetched file was taken", source=found.source, imported=delivery.is_done)

    def failed(self, problem: str, error: Exception, place: str) -> None:
        """Tell that a source, or a file of it, cannot be used; not again while it is the same."""
        reason = str(error) or type(error).__name__
        if self._told.get(place) == reason:
            return
        if len(self._told) >= _STUCK_MAX:
            del self._told[next(iter(self._told))]
        self._told[place] = reason
        self.failures += 1
        log.error(problem, reason=reason, source=place)

    def works(self, place: str) -> None:
        """What was wrong with it is over; should it come back, it is told again."""
        self._told.pop(place, None)

    def _stay(self, found: Found, delivery: Delivery | None, error: Exception) -> None:
        self.failed("a fetched file stays where it is", error, found.source)
        if len(self._stuck) >= _STUCK_MAX:
            del self._stuck[next(iter(self._stuck))]
        self._stuck[found.source] = delivery

    async def deliver(self, found: Found, opened: Opened, *, resumed: bool = False) -> Delivery:
        """Import a file and wait until that has ended. Raises NotNowError.

        resumed: it was on its way before a restart, so a job that has ended by now is its job.
        """
        job = self._jobs.of_source(found.source)
        if job is None or (job.is_ended and not resumed):
            audience_id = audience_id_of(found.name)
            problem = "is not in the file's name" if audience_id is None else self._problem(audience_id)
            if audience_id is None or problem is not None:
                return Delivery(reason=f"The audience id {problem}.")
            wish = ImportWish(
                audience_id=audience_id, source=found.source, began_ms=found.changed_ms, force=found.force
            )
            try:
                job = await self._take(wish, opened)
            except UnreadableFile as refusal:
                return Delivery(reason=refusal.message, line=refusal.line)
            except _CannotBeReadError as refusal:
                self.failed("a fetched file cannot be read", refusal, found.source)
                return Delivery(reason=f"The file cannot be read: {refusal}")
        await self._jobs.ended(job)
        return Delivery(job)

    def _problem(self, audience_id: str) -> str | None:
        if not self._rules.passthrough_enabled:
            return "cannot be used: [passthrough] enabled is false"
        return self._rules.audience_id_problem(audience_id)

    async def _take(self, wish: ImportWish, opened: Opened) -> ImportJob:
        died = 0
        while True:
            try:
                return await self._uploads.take(wish, _read(opened()))
            except Unavailable as refusal:
                died += isinstance(refusal, StagerDiedError)
                if died >= self._tries_max:
                    reason = f"the process that reads it died {died} times ([imports] stager_tries_max); see the log"
                    raise _CannotBeReadError(reason) from refusal
                log.info("a fetched file waits", source=wish.source, reason=refusal.message)
                await trio.sleep(_BUSY_SECONDS)


async def _read(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks; what they raise is told apart from what the data folder raises, which is worth waiting for."""
    try:
        async for chunk in chunks:
            yield chunk
    except NotNowError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _CannotBeReadError(reason or type(error).__name__) from error


async def chunks_of(read: Callable[[int], bytes], close: Callable[[], None]) -> AsyncIterator[bytes]:
    """What a blocking reader gives, read in worker threads."""
    try:
        while chunk := await in_thread(read, FILE_CHUNK_BYTES):
            yield chunk
    finally:
        close()
