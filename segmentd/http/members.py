"""Members of a segment: pages as JSON, and the whole list as a file.

Owns the choice between the two, and their wire forms. Which rows there are is the store's; the file's form is the
exporter's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Final, Literal

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.membership import ts_ms_of
from segmentd.domain.pagecursors import MEMBER, cursor_of
from segmentd.domain.refusals import SegmentNotFound
from segmentd.domain.segments import Segment, normalise_segment_id
from segmentd.http.bodies import JSON_TYPE, NDJSON_TYPES
from segmentd.http.errors import InvalidRequest, NotAcceptable
from segmentd.http.exchange import Answer, Header, Request, json_answer
from segmentd.http.negotiation import choose, quality
from segmentd.http.pages import after_of, first_of, query_of, truth_of
from segmentd.http.routing import Operation, Route
from segmentd.http.segments import SegmentCatalog
from segmentd.runtime.seam import Export, ImportHistory, MembersReader, SeveralIdentifiersError
from segmentd.settings import Settings

CSV_TYPE: Final = "text/csv"
# In this order: `*/*` and a missing Accept mean a page.
OFFERED: Final = (JSON_TYPE, CSV_TYPE, *NDJSON_TYPES)
_NOT_STORED: Final = ("cache-control", "no-store")


class MembersApi:
    """The handler of `/v3/segments/{segment_id}/members`."""

    def __init__(
        self,
        reader: MembersReader,
        catalog: SegmentCatalog,
        schema: IdentifierSchema,
        imports: ImportHistory,
        settings: Settings,
    ) -> None:
        self._reader = reader
        self._catalog = catalog
        self._schema = schema
        self._imports = imports
        self._page_max = settings.members.page_members_max
        self._segment_id_chars_max = settings.limits.segment_id_chars_max

    def routes(self) -> Iterator[Route]:
        """The one route of this API."""
        yield Route("/v3/segments/{segment_id}/members", {"GET": Operation(self.get, "private")})

    async def get(self, request: Request) -> Answer:
        """200 with a page, or with all members as a file; 404."""
        fields = query_of(request)
        form = _form(fields, request)
        segment = self._segment(request)
        if form == "page":
            return await self._page(segment, fields)
        return await self._file(segment, form, fields, request)

    async def _page(self, segment: Segment, fields: dict[str, str]) -> Answer:
        first, after = first_of(fields, self._page_max), after_of(fields, MEMBER)
        audience = segment.definition.external_audience_id
        page = await self._reader.page(audience, after, first)
        sources = self._imports.qualifying(audience)
        shown = []
        for key, v in page.members:
            name, value = self._schema.parse_key(key)
            source = f"import:{sources[v]}" if v in sources else "event"
            shown.append({"identifier": name, "value": value, "qualified_at": ts_ms_of(v) / 1000, "source": source})
        following = cursor_of(MEMBER, page.members[-1][0]) if page.has_more else None
        return json_answer(200, {"members": shown, "total": page.total, "next": following}, (_NOT_STORED,))

    async def _file(
        self, segment: Segment, form: Literal["csv", "ndjson"], fields: dict[str, str], request: Request
    ) -> Answer:
        audience = segment.definition.external_audience_id
        # The file's own compression is one thing, that of the way there another; here they are never both.
        as_gzip = truth_of(fields, "gzip")
        encoded = not as_gzip and quality_of_gzip(request.headers.get("accept-encoding", "")) > 0
        identifier = self._identifier(fields)
        if request.method == "HEAD":
            return Answer(200, headers=_file_headers(audience, form, as_gzip=as_gzip, encoded=encoded))
        try:
            export = await self._reader.export(audience, form, gzip=as_gzip or encoded, identifier=identifier)
        except SeveralIdentifiersError as error:
            names = ", ".join(error.names)
            raise InvalidRequest(
                "identifier",
                f"The members have several identifiers ({names}), and a CSV has room for one: choose it with"
                " identifier=, or take format=ndjson, which has them all.",
            ) from None
        headers = _file_headers(audience, form, as_gzip=as_gzip, encoded=encoded)
        return Answer(200, headers=headers, stream=_chunks(export))

    def _identifier(self, fields: dict[str, str]) -> str | None:
        name = fields.get("identifier")
        if name is None:
            return None
        kind = self._schema.kinds.get(name)
        if kind is None or not kind.is_high:
            known = ", ".join(kind.name for kind in self._schema.kinds.values() if kind.is_high)
            raise InvalidRequest("identifier", f"The field identifier must be one of {known}; got {name[:100]!r}.")
        return name

    def _segment(self, request: Request) -> Segment:
        segment_id = normalise_segment_id(request.params["segment_id"], self._segment_id_chars_max)
        segment = self._catalog.segments.get(segment_id)
        if segment is None:
            raise SegmentNotFound(segment_id)
        return segment


async def _chunks(export: Export) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in export.chunks():
            yield chunk
    finally:
        await export.aclose()


def _form(fields: dict[str, str], request: Request) -> Literal["page", "csv", "ndjson"]:
    """What is asked for: `format` decides, else Accept. Raises InvalidRequest, NotAcceptable."""
    match fields.get("format"):
        case None:
            pass
        case "csv":
            return "csv"
        case "ndjson":
            return "ndjson"
        case "json":
            return "page"
        case other:
            raise InvalidRequest("format", f"The field format must be json, csv or ndjson; got {other[:20]!r}.")
    chosen = choose(request.headers.get("accept"), OFFERED)
    if chosen is None:
        raise NotAcceptable(f"Accept names none of the types that are offered: {', '.join(OFFERED)}.")
    if chosen == CSV_TYPE:
        return "csv"
    return "ndjson" if chosen in NDJSON_TYPES else "page"


def quality_of_gzip(accept_encoding: str) -> float:
    """How much a client wants gzip as a content coding, 0 to 1."""
    return quality(accept_encoding, "gzip") if "gzip" in accept_encoding.lower() else 0.0


def _file_headers(audience: str, form: str, *, as_gzip: bool, encoded: bool) -> tuple[Header, ...]:
    """The file is offered for saving under the name that an import takes the audience from."""
    content_type = "application/gzip" if as_gzip else f"{CSV_TYPE if form == 'csv' else NDJSON_TYPES[0]}; charset=utf-8"
    name = f"{audience}.{form}{'.gz' if as_gzip else ''}"
    headers: list[Header] = [
        ("content-type", content_type),
        ("content-disposition", f'attachment; filename="{name}"'),
        ("x-content-type-options", "nosniff"),
        ("vary", "accept, accept-encoding"),
        _NOT_STORED,
    ]
    if encoded:
        headers.append(("content-encoding", "gzip"))
    return tuple(headers)
