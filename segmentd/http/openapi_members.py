"""Audiences, members and forgetting in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from segmentd.http.audiences import PAGE_MAX
from segmentd.http.compliance import LAWS
from segmentd.http.openapi_parts import JSON_TYPE, Json, answer, body, errors, header_refs, ref
from segmentd.settings import Settings

_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_SECONDS: Final[Json] = {"type": "number", "minimum": 0}
_SECONDS_OR_NOT: Final[Json] = {"type": ["number", "null"], "minimum": 0}
_CURSOR: Final[Json] = {"type": ["string", "null"]}


def member_paths(settings: Settings) -> Json:
    """The paths of audiences, members and forgetting."""
    segment = {
        "type": "string",
        "pattern": "^[A-Za-z0-9_]+$",
        "minLength": 1,
        "maxLength": settings.limits.segment_id_chars_max,
    }
    law = _path("law", {"enum": list(LAWS)})
    return {
        "/v3/audiences": {"get": _audiences()},
        "/v3/audiences/{audience_id}": _audience(),
        "/v3/audiences/{audience_id}/deletions/{deletion_id}": {
            "parameters": [_path("audience_id", _TEXT), _path("deletion_id", {**_TEXT, "pattern": "^[0-9]+$"})],
            "get": _get("getDeletion", "How far a deletion is.", "Deletion", 404),
        },
        "/v3/segments/{segment_id}/members": {"parameters": [_path("segment_id", segment)], "get": _members(settings)},
        "/v3/compliance/{law}/delete": {"parameters": [law], "post": _forget(settings)},
        "/v3/compliance/{law}/status/{request_id}": {
            "parameters": [law, _path("request_id", _TEXT)],
            "get": _get("getForgetting", "How far a request to forget is.", "Forgetting", 404),
        },
    }


def _path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _page(first_max: int) -> list[Json]:
    first = {"type": "integer", "minimum": 1, "maximum": first_max}
    return [_query("first", "How many.", first), _query("after", "The `next` of the page before.", _TEXT)]


def _get(name: str, summary: str, schema: str, *statuses: int) -> Json:
    responses = {"200": answer(summary, schema), **errors("Error", 403, 408, 413, 503, *statuses)}
    return {"operationId": name, "summary": summary, "responses": responses}


def _audiences() -> Json:
    without = _query("without_segment", "Only audiences that no segment names.", {"type": "boolean"})
    listed = _get("listAudiences", "External audiences, by id.", "Audiences", 400)
    segments = _query("segments", "Only audiences that one of these segments names; commas between them.", _TEXT)
    return {**listed, "parameters": [*_page(PAGE_MAX), without, segments]}


def _audience() -> Json:
    return {
        "parameters": [_path("audience_id", _TEXT)],
        "get": _get("getAudience", "One external audience.", "Audience", 404),
        "delete": {
            "operationId": "deleteAudience",
            "summary": "Drop all memberships of an audience.",
            "description": (
                "Nothing shows them any more when this is answered; they are swept up meanwhile. Qualifications from"
                " before the deletion do not bring them back, later ones begin the audience anew."
            ),
            "responses": {
                "202": answer("It is deleted; the rest is being swept up.", "Deletion"),
                **errors("Error", 403, 404, 408, 413, 503),
            },
        },
    }


def _members(settings: Settings) -> Json:
    high = [name for name, kind in settings.identifiers.items() if kind.confidence == "high"]
    files = {
        kind: {"schema": {"type": "string"}}
        for kind in ("text/csv", "application/x-ndjson", "application/ndjson", "application/gzip")
    }
    return {
        "operationId": "getMembers",
        "summary": "A page of the members, or all of them as a file.",
        "description": (
            "A file is one consistent snapshot. A CSV imported again gives the same members. Values are never changed:"
            " a spreadsheet may take one that begins with = + - @ for a formula."
        ),
        "parameters": [
            *_page(settings.members.page_members_max),
            _query("format", "Instead of Accept.", {"enum": ["json", "csv", "ndjson"]}),
            _query("gzip", "A file that is compressed itself.", {"type": "boolean"}),
            _query("identifier", "The only identifier in a file; a CSV has room for one.", {"enum": high}),
        ],
        "responses": {
            "200": {
                "description": "A page or a file.",
                "headers": header_refs("x-request-id"),
                "content": {JSON_TYPE: {"schema": ref("Members")}, **files},
            },
            **errors("Error", 400, 403, 404, 406, 408, 413, 503),
        },
    }


def _forget(settings: Settings) -> Json:
    maximum = settings.compliance.identifiers_per_request_max
    identifier = {"type": "string", "minLength": 1, "maxLength": settings.limits.identifier_bytes_max}
    one = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": dict.fromkeys(settings.identifiers, identifier),
    }
    listed = {"type": "array", "minItems": 1, "maxItems": maximum, "items": one}
    return {
        "operationId": "forget",
        "summary": f"Forget up to {maximum} identifiers.",
        "description": (
            "When this is answered no query shows them, and decisions from before it do not bring them back. The"
            " request is COMPLETED when no trace of them is left in the data folder."
        ),
        "requestBody": body(f"At most {settings.compliance.body_bytes_max} bytes.", (JSON_TYPE, listed)),
        "responses": {
            "202": answer("They are forgotten; the traces are being removed.", "Forgetting"),
            **errors("Error", 400, 403, 404, 408, 413, 415, 503),
        },
    }


def member_schemas() -> Json:
    """The schemas of audiences, members and forgetting."""
    audience = {
        "audience_id": _TEXT,
        "size": _COUNT,
        "last_event": {**_SECONDS_OR_NOT, "description": "The largest `ts` of its events."},
        "last_import": {"anyOf": [ref("Import"), {"type": "null"}]},
        "last_import_as_of": {
            **_SECONDS_OR_NOT,
            "description": "The T of its latest whole list; known for ever, while the job itself is kept for a time.",
        },
        "segment_ids": {"type": "array", "items": _TEXT},
    }
    member = {"identifier": _TEXT, "value": _TEXT, "qualified_at": _SECONDS, "source": _TEXT}
    deletion = {
        "id": _TEXT,
        "audience_id": _TEXT,
        "state": {"enum": ["running", "completed"]},
        "deleted_at": _SECONDS,
    }
    forgetting = {
        "request_id": _TEXT,
        "status": {"enum": ["IN_PROGRESS", "COMPLETED"]},
        "reason": {"type": ["string", "null"], "description": "Why it takes so long, if something is wrong."},
        "received_at": _SECONDS,
        "completed_at": _SECONDS_OR_NOT,
    }
    return {
        "Audience": _closed(audience),
        "Audiences": _closed({"audiences": _listed("Audience"), "total": _COUNT, "next": _CURSOR}),
        "Member": _closed(member),
        "Members": _closed({"members": _listed("Member"), "total": _COUNT, "next": _CURSOR}),
        "Deletion": _closed(deletion),
        "Forgetting": _closed(forgetting),
    }


def _listed(schema: str) -> Json:
    return {"type": "array", "items": ref(schema)}


def _closed(properties: dict[str, Any]) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}
