"""The audiences API: which external audiences there are, how large, and deleting one.

Owns the wire form of audiences and deletions. Counting and deleting is the store's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from segmentd.domain.pagecursors import AUDIENCE, cursor_of
from segmentd.http.errors import NotFound
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.imports import shown
from segmentd.http.pages import after_of, first_of, query_of, truth_of
from segmentd.http.routing import Operation, Route
from segmentd.http.segments import SegmentCatalog
from segmentd.runtime.audiences import Deletion
from segmentd.runtime.seam import AudienceFacts, DeletesAudiences, ImportHistory, MembersReader

PAGE_MAX: Final = 1_000
# What fits 64 bits with a sign; the numbers of the embedded store have seven.
DELETION_DIGITS_MAX: Final = 18


class AudiencesApi:
    """Handlers of `/v3/audiences`."""

    def __init__(
        self,
        store: DeletesAudiences,
        reader: MembersReader,
        catalog: SegmentCatalog,
        imports: ImportHistory,
        *,
        clock: Callable[[], float],
    ) -> None:
        """clock: seconds since the epoch."""
        self._store = store
        self._reader = reader
        self._catalog = catalog
        self._imports = imports
        self._clock = clock

    def routes(self) -> Iterator[Route]:
        """All routes of this API."""
        yield Route("/v3/audiences", {"GET": Operation(self.list_page, "private")})
        yield Route(
            "/v3/audiences/{audience_id}",
            {"GET": Operation(self.get, "private"), "DELETE": Operation(self.delete, "private")},
        )
        yield Route("/v3/audiences/{audience_id}/deletions/{deletion_id}", {"GET": Operation(self.deletion, "private")})

    async def list_page(self, request: Request) -> Answer:
        """200 with a page of audiences, by id.

        `without_segment`: only those that no segment names. `segments`: only those that these segments name.
        """
        fields = query_of(request)
        first, after = first_of(fields, PAGE_MAX), after_of(fields, AUDIENCE)
        ids = await self._reader.audience_ids()
        if truth_of(fields, "without_segment"):
            named = {segment.definition.external_audience_id for segment in self._catalog.segments.values()}
            ids = [audience_id for audience_id in ids if audience_id not in named]
        if "segments" in fields:
            wanted = self._named_by(fields["segments"].split(","))
            ids = [audience_id for audience_id in ids if audience_id in wanted]
        start = bisect_right(ids, after.decode(errors="replace")) if after else 0
        page = ids[start : start + first]
        has_more = start + len(page) < len(ids)
        return json_answer(
            200,
            {
                "audiences": await self._shown(page),
                "total": len(ids),
                "next": cursor_of(AUDIENCE, page[-1].encode()) if has_more else None,
            },
        )

    async def get(self, request: Request) -> Answer:
        """200 with one audience, 404."""
        found = await self._shown([request.params["audience_id"]])
        if not found:
            raise NotFound("Audience not found.")
        return json_answer(200, found[0])

    async def delete(self, request: Request) -> Answer:
        """202 with the deletion; nothing shows the audience's members any more. 404."""
        deletion = await self._store.delete_audience(request.params["audience_id"], int(self._clock() * 1000))
        if deletion is None:
            raise NotFound("Audience not found.")
        return json_answer(202, _deletion_shown(deletion))

    async def deletion(self, request: Request) -> Answer:
        """200 with the state of a deletion, 404."""
        text = request.params["deletion_id"]
        is_number = text.isascii() and text.isdigit() and len(text) <= DELETION_DIGITS_MAX
        deletion = await self._store.deletion(int(text)) if is_number else None
        if deletion is None or deletion.audience_id != request.params["audience_id"]:
            raise NotFound("Deletion not found.")
        return json_answer(200, _deletion_shown(deletion))

    def _named_by(self, segment_ids: Sequence[str]) -> set[str]:
        segments = self._catalog.segments
        found = (segments.get(segment_id) for segment_id in segment_ids)
        return {segment.definition.external_audience_id for segment in found if segment is not None}

    async def _shown(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        segments: defaultdict[str, list[str]] = defaultdict(list)
        for segment_id in self._catalog.segment_ids():
            segment = self._catalog.segments[segment_id]
            segments[segment.definition.external_audience_id].append(segment_id)
        return [self._audience(facts, segments[facts.audience_id]) for facts in await self._reader.facts(ids)]

    def _audience(self, facts: AudienceFacts, segment_ids: Sequence[str]) -> dict[str, Any]:
        imported = self._imports.last_completed(facts.audience_id)
        return {
            "audience_id": facts.audience_id,
            "size": facts.size,
            "last_event": facts.last_event_ms / 1000 if facts.last_event_ms else None,
            "last_import": None if imported is None else shown(imported),
            "last_import_as_of": facts.last_import_ms / 1000 if facts.last_import_ms else None,
            "segment_ids": segment_ids,
        }


def _deletion_shown(deletion: Deletion) -> dict[str, Any]:
    return {
        "id": str(deletion.number),
        "audience_id": deletion.audience_id,
        "state": "completed" if deletion.is_complete else "running",
        "deleted_at": deletion.deleted_ms / 1000,
    }
