"""Imports in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from segmentd.http.imports import PAGE_MAX
from segmentd.http.openapi_parts import Json, answer, body, errors
from segmentd.settings import Settings

_TIME: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_SHARE: Final[Json] = {"type": "number", "minimum": 0, "maximum": 1}
_TEXT: Final[Json] = {"type": "string"}


def import_paths(settings: Settings) -> Json:
    """The paths of imports."""
    identifier = {"name": "import_id", "in": "path", "required": True, "schema": {**_TEXT, "pattern": "^[0-9a-f-]+$"}}

    def cancel(name: str) -> Json:
        return {
            "operationId": name,
            "summary": "Cancel an import that has not gone too far; whoever was qualified by then stays so.",
            "responses": {
                "200": answer("It is cancelled.", "Import"),
                **errors("Error", 403, 404, 408, 409, 413, 503),
            },
        }

    get = {
        "operationId": "getImport",
        "summary": "One import.",
        "responses": {"200": answer("The import.", "Import"), **errors("Error", 403, 404, 408, 413, 503)},
    }
    return {
        "/v3/audiences/{audience_id}/imports": _post(settings),
        "/v3/imports": {"get": _list(settings)},
        "/v3/imports/{import_id}": {"parameters": [identifier], "get": get, "delete": cancel("deleteImport")},
        "/v3/imports/{import_id}/cancel": {"parameters": [identifier], "post": cancel("cancelImport")},
    }


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _audience_id(settings: Settings) -> Json:
    # The schema has no name of its own; it is the one of events.
    return {
        **_TEXT,
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:@+~-]*$",
        "minLength": 1,
        "maxLength": settings.limits.audience_id_chars_max,
    }


def _post(settings: Settings) -> Json:
    high = [name for name, kind in settings.identifiers.items() if kind.confidence == "high"]
    csv = {**_TEXT, "description": "Header `type,action,audience_id,ts,<identifier>`, or `<identifier>` alone."}
    ndjson = {**_TEXT, "description": 'One `{"<identifier>": "...", "ts"?: n}` or one event a line.'}
    contents: tuple[tuple[str, Any], ...] = (("text/csv", csv), ("application/x-ndjson", ndjson))
    operation = {
        "operationId": "importAudience",
        "summary": "As of T, these are exactly the members of the audience.",
        "description": (
            "Whoever is listed is qualified at T; who is a member since before T and not listed is disqualified;"
            " what happened at T or after it stays. T is `as_of`, else the largest `ts` of the file, else now."
        ),
        "parameters": [
            _query("as_of", "T in seconds, at most three decimals.", {"type": "number", "minimum": 0}),
            _query("identifier", "The column that counts, where there are several.", {"enum": high}),
            _query("dry_run", "Count, and change nothing.", {"type": "boolean"}),
            _query("force", "Disqualify however many it takes.", {"type": "boolean"}),
            _query("max_shrink", "The share of the members that may be disqualified.", _SHARE),
        ],
        "requestBody": body(
            f"At most {settings.limits.imports_body_bytes_max} bytes; gzip is also told by the first bytes.", *contents
        ),
        "responses": {
            "202": answer("The list is on disk and will be imported.", "Import", "location"),
            **errors("EventsError", 400, 403, 408, 413, 415, 503),
        },
    }
    audience = {"name": "audience_id", "in": "path", "required": True, "schema": _audience_id(settings)}
    return {"parameters": [audience], "post": operation}


def _list(settings: Settings) -> Json:
    return {
        "operationId": "listImports",
        "summary": "Imports, newest first.",
        "parameters": [
            _query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}),
            _query("cursor", "The `cursor` of the page before.", _TEXT),
            _query("audience_id", "Only those of this audience.", _audience_id(settings)),
        ],
        "responses": {"200": answer("A page.", "Imports"), **errors("Error", 400, 403, 408, 413, 503)},
    }


def import_schemas(settings: Settings) -> Json:
    """The schemas of imports."""
    reject = {
        "type": "object",
        "required": ["line", "reason"],
        "properties": {"line": _COUNT, "reason": _TEXT},
    }
    states = {"enum": ["queued", "running", "completed", "failed", "cancelled"]}
    counts = dict.fromkeys(("rows", "distinct", "qualified", "disqualified", "unchanged", "rejected"), _COUNT)
    properties: Json = {
        **dict.fromkeys(("id", "identifier", "source"), _TEXT),
        "audience_id": _audience_id(settings),
        "state": states,
        "phase": {"enum": ["checking", "qualifying", "raising", "sweeping", None]},
        "as_of": {"type": "number", "minimum": 0},
        **{name: {"type": "boolean"} for name in ("dry_run", "force")},
        **dict.fromkeys(("max_shrink", "progress"), _SHARE),
        **counts,
        "rejects": {"type": "array", "maxItems": settings.imports.rejects_listed_max, "items": reject},
        "reason": {"type": ["string", "null"]},
        **dict.fromkeys(("created_at", "started_at", "finished_at"), _TIME),
    }
    shown = {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}
    page = {
        "type": "object",
        "required": ["imports", "cursor"],
        "properties": {
            "imports": {"type": "array", "maxItems": PAGE_MAX, "items": {"$ref": "#/components/schemas/Import"}},
            "cursor": {"type": ["string", "null"], "description": "Of the next page; null: this is the last one."},
        },
        "additionalProperties": False,
    }
    return {"Import": shown, "Imports": page}
