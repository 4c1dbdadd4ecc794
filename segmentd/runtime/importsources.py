"""Files that are fetched instead of sent: what all sources have in common.

A source gives each file a name that stands for its very content (name, time, size or tag). So a file whose import
was taken before a restart is found again and not imported twice, and one whose import was not taken is begun anew; a
repeated import would change nothing either way.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import structlog
import trio

from segmentd.domain.events import EventRules
from segmentd.domain.importjob import ImportJob
from segmentd.domain.refusals import Unavailable
from segmentd.domain.wholelist import UnreadableFile, audience_id_of
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.importuploads import FILE_CHUNK_BYTES, ImportUploads, ImportWish

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_BUSY_SECONDS = 1.0


class Found(msgspec.Struct, frozen=True):
    """A file at a source. changed_ms: when it was last written; its T, if it says none itself."""

    name: str
    source: str
    changed_ms: int


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


class Importing:
    """Takes files from sources, one at a time each."""

    def __init__(self, uploads: ImportUploads, jobs: ImportJobs, rules: EventRules) -> None:
        self._uploads = uploads
        self._jobs = jobs
        self._rules = rules

    async def deliver(self, found: Found, opened: Callable[[], AsyncIterator[bytes]]) -> Delivery:
        """Import a file and wait until that has ended. opened: gives its bytes from the beginning, each time."""
        job = self._jobs.of_source(found.source)
        if job is None:
            audience_id = audience_id_of(found.name)
            problem = "is not in the file's name" if audience_id is None else self._problem(audience_id)
            if audience_id is None or problem is not None:
                return Delivery(reason=f"The audience id {problem}.")
            wish = ImportWish(audience_id=audience_id, source=found.source, began_ms=found.changed_ms)
            try:
                job = await self._take(wish, opened)
            except UnreadableFile as refusal:
                return Delivery(reason=refusal.message, line=refusal.line)
        await self._jobs.ended(job)
        return Delivery(job)

    def _problem(self, audience_id: str) -> str | None:
        if not self._rules.passthrough_enabled:
            return "cannot be used: [passthrough] enabled is false"
        return self._rules.audience_id_problem(audience_id)

    async def _take(self, wish: ImportWish, opened: Callable[[], AsyncIterator[bytes]]) -> ImportJob:
        while True:
            try:
                return await self._uploads.take(wish, opened())
            except Unavailable as refusal:
                log.info("a fetched file waits", source=wish.source, reason=refusal.message)
                await trio.sleep(_BUSY_SECONDS)


async def chunks_of(read: Callable[[int], bytes], close: Callable[[], None]) -> AsyncIterator[bytes]:
    """What a blocking reader gives, read in worker threads."""
    try:
        while chunk := await trio.to_thread.run_sync(read, FILE_CHUNK_BYTES):
            yield chunk
    finally:
        close()
