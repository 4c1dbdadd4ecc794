"""Imports: whole lists in, as jobs to be looked at and cancelled.

Owns the wire form of jobs and the reading of the query. The file's meaning is the domain's, its way the runtime's.

Invariants:
1. A query field that is not known is refused: `dryrun` must not become an import that counts.
2. 202 means that the list and its job are on disk; it will be done, whatever happens to the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from segmentd.domain.events import EventRules
from segmentd.domain.importjob import Form, ImportJob
from segmentd.domain.refusals import PassthroughDisabled, UnsupportedMediaType
from segmentd.domain.wholelist import is_past, parse_ts
from segmentd.http.errors import Conflict, InvalidRequest, NoSuchPath, timestamp
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.negotiation import content_type
from segmentd.runtime.importer import Importer
from segmentd.runtime.importjobs import ImportJobs
from segmentd.runtime.importmirror import JobElsewhere
from segmentd.runtime.importuploads import ImportUploads, ImportWish

FORMS: Final[dict[str, Form]] = {
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/gzip": "auto",
    "application/octet-stream": "auto",
}
"""Media type → form; for the last two the first bytes tell."""
PAGE_MAX: Final = 100
_POST_FIELDS: Final = ("as_of", "identifier", "dry_run", "force", "max_shrink")
_LIST_FIELDS: Final = ("limit", "cursor", "audience_id")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_GZIP: Final = ("gzip", "x-gzip")


class NoSuchImport(NoSuchPath):
    """No import has this id (any more)."""

    code = "IMPORT_NOT_FOUND"


class ImportsApi:
    """Handlers of `/v3/audiences/{audience_id}/imports` and `/v3/imports`."""

    def __init__(
        self,
        uploads: ImportUploads,
        jobs: ImportJobs,
        importer: Importer,
        rules: EventRules,
        clock: Callable[[], float],
    ) -> None:
        """rules: those of events; a list must not say what an event could not. clock: seconds since the epoch."""
        self._uploads = uploads
        self._jobs = jobs
        self._importer = importer
        self._rules = rules
        self._clock = clock

    async def post(self, request: Request) -> Answer:
        """202 with the job; 400 says what is wrong with the file."""
        if not self._rules.passthrough_enabled:
            raise PassthroughDisabled
        wish = self._wish(request)
        assert request.stream is not None  # noqa: S101  # the route streams
        job = await self._uploads.take(wish, request.stream)
        return json_answer(202, shown(job), (("location", f"/v3/imports/{job.id}"),))

    async def list(self, request: Request) -> Answer:
        """200 with a page of jobs, newest first."""
        fields = _fields(request, _LIST_FIELDS)
        limit = _number(fields, "limit", PAGE_MAX, 1, PAGE_MAX)
        audience_id = self._audience_id(fields["audience_id"]) if "audience_id" in fields else None
        jobs = self._jobs.newest_first(fields.get("cursor"), audience_id)
        page = list(islice(jobs, int(limit) + 1))
        more = len(page) > limit
        page = page[: int(limit)]
        return json_answer(200, {"imports": [shown(job) for job in page], "cursor": page[-1].id if more else None})

    async def get(self, request: Request) -> Answer:
        """200 with the job, of whichever node; 404."""
        job_id = request.params["import_id"]
        job = self._jobs.get(job_id)
        if job is None and (elsewhere := await self._jobs.elsewhere(job_id)) is not None:
            job = elsewhere.job
        return json_answer(200, shown(_found(job)))

    async def cancel(self, request: Request) -> Answer:
        """200 with the job, which is cancelled; 409 if it is too late, or runs on another node; 404."""
        job_id = request.params["import_id"]
        job = self._jobs.get(job_id)
        if job is None and (elsewhere := await self._jobs.elsewhere(job_id)) is not None:
            return _cancelled_elsewhere(elsewhere)
        job = _found(job)
        if not await self._importer.cancel(job):
            state = job.state if job.is_ended else "past the point where it could be cancelled, and goes through"
            raise Conflict(f"The import is {state}.")
        return json_answer(200, shown(job))

    def _wish(self, request: Request) -> ImportWish:
        audience_id = self._audience_id(request.params["audience_id"])
        media_type = content_type(request.headers.get("content-type"), tuple(FORMS), missing="application/octet-stream")
        fields = _fields(request, _POST_FIELDS)
        return ImportWish(
            audience_id=audience_id,
            source="http",
            form=FORMS[media_type],
            gzip=_is_gzip(request.headers.get("content-encoding", "")),
            identifier=self._identifier(fields),
            as_of_ms=self._as_of_ms(fields),
            dry_run=_truth(fields, "dry_run"),
            force=_truth(fields, "force"),
            max_shrink=_number(fields, "max_shrink", -1, 0, 1) if "max_shrink" in fields else None,
        )

    def _audience_id(self, text: str) -> str:
        if problem := self._rules.audience_id_problem(text):
            raise InvalidRequest("audience_id", f"The audience id {problem}.")
        return text

    def _identifier(self, fields: Mapping[str, str]) -> str | None:
        name = fields.get("identifier")
        if name is not None and (name not in self._rules.kinds or not self._rules.kinds[name].is_high):
            known = ", ".join(name for name, kind in self._rules.kinds.items() if kind.is_high)
            raise InvalidRequest("identifier", f"`identifier` must be a high-confidence identifier: {known}.")
        return name

    def _as_of_ms(self, fields: Mapping[str, str]) -> int | None:
        if "as_of" not in fields:
            return None
        try:
            as_of_ms = parse_ts(fields["as_of"])
        except ValueError as error:
            raise InvalidRequest("as_of", str(error).replace("`ts`", "`as_of`") + ".") from None
        if not is_past(as_of_ms, int(self._clock() * 1000) + self._rules.future_ms_max):
            raise InvalidRequest("as_of", "`as_of` is in the future; it must be in seconds since 1970.")
        return as_of_ms


def _found(job: ImportJob | None) -> ImportJob:
    if job is None:
        raise NoSuchImport("Import not found.")
    return job


def _cancelled_elsewhere(elsewhere: JobElsewhere) -> Answer:
    """The answer to whoever wants to cancel a job of another node. Raises Conflict."""
    job = elsewhere.job
    if not job.is_ended:
        raise Conflict(f"The import runs on another node, {elsewhere.node}; it can be cancelled there.")
    if job.state != "cancelled":
        raise Conflict(f"The import is {job.state}.")
    return json_answer(200, shown(job))


def shown(job: ImportJob) -> dict[str, Any]:
    """A job as clients see it. Times are RFC 3339, `as_of` is seconds since the epoch."""
    return {
        "id": job.id,
        "audience_id": job.audience_id,
        "state": job.state,
        "phase": None if job.is_ended or job.state == "queued" else job.phase,
        "as_of": job.as_of_ms / 1000 if job.as_of_ms % 1000 else job.as_of_ms // 1000,
        "identifier": job.identifier,
        "source": job.source,
        "dry_run": job.dry_run,
        "force": job.force,
        "max_shrink": job.max_shrink,
        "rows": job.rows,
        "distinct": job.distinct,
        "qualified": job.qualified,
        "disqualified": job.disqualified,
        "unchanged": job.unchanged,
        "rejected": job.rejected,
        "rejects": job.rejects,
        "reason": job.reason,
        "progress": round(job.progress, 4),
        "created_at": _time(job.created_ms),
        "started_at": _time(job.started_ms),
        "finished_at": _time(job.finished_ms),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else timestamp(ms / 1000)


def _fields(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    try:
        fields = request.query_fields()
    except ValueError as error:
        raise InvalidRequest("query", f"The query cannot be read: {error}.") from None
    for name in fields:
        if name not in known:
            raise InvalidRequest("query", f"`{name[:64]}` is not known here; known are: {', '.join(known)}.")
    return fields


def _truth(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "false")
    if text.lower() not in _TRUTH:
        raise InvalidRequest(name, f"`{name}` must be true or false.")
    return _TRUTH[text.lower()]


def _number(fields: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = fields.get(name)
    if text is None:
        return default
    try:
        number = float(text) if isinstance(default, float) or most == 1 else int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidRequest(name, f"`{name}` must be a number from {least:g} to {most:g}.")
    return number


def _is_gzip(encoding: str) -> bool:
    named = [part for piece in encoding.split(",") if (part := piece.strip().lower()) not in ("", "identity")]
    if named and (len(named) > 1 or named[0] not in _GZIP):
        raise UnsupportedMediaType(f"Content-Encoding {encoding[:100]} is not read here; accepted: gzip, identity.")
    return bool(named)
