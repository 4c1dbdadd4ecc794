"""The segments API: list, get, create, update, validate, delete.

Owns the wire form of segments and their preconditions. What a definition may be is the domain's, durability the
catalog's.

Invariants:
1. A write's precondition and the write itself are one step: writes of one segment take turns here.
2. A revision is a strong ETag; `If-Match` and `If-None-Match` decide before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

import trio

from segmentd.domain.refusals import SegmentNotFound
from segmentd.domain.segments import Segment, SegmentDefinition, SegmentRules, normalise_segment_id, parse_definition
from segmentd.http import bodies
from segmentd.http.bodies import JSON_TYPE, BodyRules
from segmentd.http.errors import AlreadyExists, PreconditionFailed
from segmentd.http.exchange import Answer, Header, Request, json_answer
from segmentd.http.preconditions import ANY, etag, matches, parse_tags
from segmentd.settings import LimitsSettings


class SegmentCatalog(Protocol):
    """What this needs of `segmentd.runtime.catalog.Catalog`."""

    @property
    def segments(self) -> Mapping[str, Segment]: ...
    def segment_ids(self) -> list[str]: ...
    async def put(self, segment_id: str, definition: SegmentDefinition, if_match: int | None) -> tuple[Segment, bool]:
        """(segment, whether it was created); durable."""

    async def delete(self, segment_id: str, if_match: int | None) -> list[str]:
        """The ids that remain; durable."""


class SegmentsApi:
    """Handlers of `/v3/segments`."""

    def __init__(self, catalog: SegmentCatalog, rules: SegmentRules, limits: LimitsSettings) -> None:
        self._catalog = catalog
        self._rules = rules
        # Writes of one segment take turns, so that what a write is conditional on still holds when it is made. Writes
        # of others do not wait for it: while a store is away, each would wait for all that came before.
        self._turns: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._bodies = BodyRules(
            accepted=(JSON_TYPE,),
            missing=JSON_TYPE,
            inflated_bytes_max=limits.segments_body_bytes_max,
            limit_name="segments_body_bytes_max",
        )

    async def list(self, _request: Request) -> Answer:
        """200 with all ids, sorted."""
        return json_answer(200, {"segment_ids": self._catalog.segment_ids()})

    async def get(self, request: Request) -> Answer:
        """200 with the segment and its ETag; 304 if the client has it; 404."""
        segment = self._catalog.segments.get(self._id(request))
        if segment is None:
            raise SegmentNotFound(request.params["segment_id"])
        tag = _etag_header(segment)
        known = parse_tags("If-None-Match", request.headers.get("if-none-match"), weak_too=True)
        if known is not None and matches(known, segment.revision):
            return Answer(304, headers=(tag,))
        return json_answer(200, _shown(segment), (tag,))

    async def put(self, request: Request) -> Answer:
        """201 created, 200 updated or unchanged; with the revision."""
        segment_id = self._id(request)
        definition = self._definition(request)
        async with self._turn(segment_id):
            if_match = self._expected_revision(request, segment_id)
            segment, created = await self._catalog.put(segment_id, definition, if_match)
        location = (("location", f"/v3/segments/{segment_id}"),) if created else ()
        return json_answer(201 if created else 200, {"revision": segment.revision}, (_etag_header(segment), *location))

    async def validate(self, request: Request) -> Answer:
        """200 with an empty object if the definition could be put; nothing is written."""
        self._id(request)
        self._definition(request)
        return json_answer(200, {})

    async def delete(self, request: Request) -> Answer:
        """200 with the ids that remain."""
        segment_id = self._id(request)
        async with self._turn(segment_id):
            if segment_id not in self._catalog.segments:
                raise SegmentNotFound(segment_id)
            if_match = self._expected_revision(request, segment_id)
            remaining = await self._catalog.delete(segment_id, if_match)
        return json_answer(200, {"segment_ids": remaining})

    def _turn(self, segment_id: str) -> trio.Lock:
        return self._turns.setdefault(segment_id, trio.Lock())

    def _id(self, request: Request) -> str:
        return normalise_segment_id(request.params["segment_id"], self._rules.segment_id_chars_max)

    def _definition(self, request: Request) -> SegmentDefinition:
        _, body = bodies.read(request, self._bodies)
        return parse_definition(body, self._rules)

    def _expected_revision(self, request: Request, segment_id: str) -> int | None:
        """The revision that the write must find, None for any. Raises AlreadyExists, PreconditionFailed."""
        present = self._catalog.segments.get(segment_id)
        revision = None if present is None else present.revision
        unwanted = parse_tags("If-None-Match", request.headers.get("if-none-match"), weak_too=True)
        if unwanted is not None and matches(unwanted, revision):
            raise AlreadyExists(f"If-None-Match forbids this write: the segment has revision {revision}.")
        wanted = parse_tags("If-Match", request.headers.get("if-match"), weak_too=False)
        if wanted is None:
            return None
        if not matches(wanted, revision):
            state = "there is no such segment" if revision is None else f"the present revision is {revision}"
            raise PreconditionFailed(f"If-Match names another revision: {state}.")
        return None if ANY in wanted else revision


def _etag_header(segment: Segment) -> Header:
    return "etag", etag(segment.revision)


def _shown(segment: Segment) -> dict[str, Any]:
    definition = segment.definition
    return {
        "revision": segment.revision,
        "description": definition.description,
        "metadata": definition.metadata,
        "definition": {"external": {"external_audience_id": definition.external_audience_id}},
    }
