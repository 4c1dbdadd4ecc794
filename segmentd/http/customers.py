"""Looking a customer up: every membership of one identifier, what decided it, and when.

Owns the wire form. The identifier comes in a body, never in an address: addresses are logged on their way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from segmentd.domain.identifiers import IdentifierKind, IdentifierSchema
from segmentd.domain.membership import is_qualified, ts_ms_of
from segmentd.http import bodies
from segmentd.http.bodies import JSON_TYPE, BodyRules
from segmentd.http.errors import InvalidRequest
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.routing import Operation, Route
from segmentd.http.segments import SegmentCatalog
from segmentd.runtime.seam import ImportHistory
from segmentd.settings import LimitsSettings

MEMBERSHIPS_MAX: Final = 1_000
"""Memberships in one answer; the latest are shown."""
_DECODE: Final = msgspec.json.Decoder(dict[str, str])


class CustomersApi:
    """The handler of `/v3/customers/lookup`."""

    def __init__(
        self,
        memberships_of: Callable[[bytes], Awaitable[Mapping[str, int]]],
        catalog: SegmentCatalog,
        schema: IdentifierSchema,
        imports: ImportHistory,
        limits: LimitsSettings,
    ) -> None:
        """memberships_of: as `MembershipStore.memberships_of`."""
        self._memberships_of = memberships_of
        self._catalog = catalog
        self._schema = schema
        self._imports = imports
        self._bodies = BodyRules(
            accepted=(JSON_TYPE,),
            missing=JSON_TYPE,
            inflated_bytes_max=limits.segments_body_bytes_max,
            limit_name="segments_body_bytes_max",
        )

    def routes(self) -> Iterator[Route]:
        """The one route of this API."""
        yield Route(
            "/v3/customers/lookup",
            {"POST": Operation(self.post, "private")},
            body_bytes_max=self._bodies.inflated_bytes_max,
            limit_name=self._bodies.limit_name,
        )

    async def post(self, request: Request) -> Answer:
        """200 with the memberships, the latest decision first; 400 says what is wrong with the identifier."""
        kind, value = self._identifier(request)
        key = self._key(kind, value)
        found = await self._memberships_of(key) if kind.is_high else {}
        latest = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        shown = {
            "identifier": kind.name,
            "value": self._schema.parse_key(key)[1],
            "confidence": kind.confidence.value,
            "total": len(latest),
            "memberships": self._shown(latest[:MEMBERSHIPS_MAX]),
        }
        return json_answer(200, shown, (("cache-control", "no-store"),))

    def _identifier(self, request: Request) -> tuple[IdentifierKind, str]:
        _, body = bodies.read(request, self._bodies)
        try:
            given = _DECODE.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest("body", f'The body must be like {{"email": "a@example.com"}}: {error}.') from None
        if len(given) != 1:
            raise InvalidRequest("body", f"Exactly one identifier is looked up; got {len(given)}.")
        name, value = given.popitem()
        kind = self._schema.kinds.get(name)
        if kind is None:
            known = ", ".join(self._schema.kinds)
            raise InvalidRequest(name[:64], f"The identifier {name[:64]!r} is not configured; known are: {known}.")
        return kind, value

    def _key(self, kind: IdentifierKind, value: str) -> bytes:
        try:
            return self._schema.key(kind, value)
        except ValueError as error:
            raise InvalidRequest(kind.name, f"The value {error}.") from None

    def _shown(self, found: list[tuple[str, int]]) -> list[dict[str, Any]]:
        sources = self._imports.deciding({audience_id for audience_id, _ in found})
        segments: defaultdict[str, list[str]] = defaultdict(list)
        for segment_id in self._catalog.segment_ids():
            segments[self._catalog.segments[segment_id].definition.external_audience_id].append(segment_id)
        return [_membership(audience_id, v, segments[audience_id], sources) for audience_id, v in found]


def _membership(
    audience_id: str, v: int, segment_ids: list[str], sources: Mapping[tuple[str, int], str]
) -> dict[str, Any]:
    qualified, decided_at = is_qualified(v), ts_ms_of(v) / 1000
    import_id = sources.get((audience_id, v))
    return {
        "audience_id": audience_id,
        "segment_ids": segment_ids,
        "state": "qualified" if qualified else "not_qualified",
        "qualified_at": decided_at if qualified else None,
        "updated_at": decided_at,
        "source": "event" if import_id is None else f"import:{import_id}",
    }
