"""Status, look-up and the pages in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from segmentd.http.console import PAGES, TYPES
from segmentd.http.openapi_parts import JSON_TYPE, Json, answer, body, empty, errors, header_refs, ref
from segmentd.http.status import SEGMENTS_MAX
from segmentd.runtime.history import OUTCOMES, QUANTILES
from segmentd.settings import Settings

_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Json] = {"type": "number", "minimum": 0}
_NUMBER_OR_NOT: Final[Json] = {"type": ["number", "null"], "minimum": 0}


def console_paths(settings: Settings) -> Json:
    """The paths of status, look-up and pages."""
    pages = {path: {"get": _page(path)} for path in PAGES}
    files = {
        "/console/{name}": {
            "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}],
            "get": _file("consoleFile", "A file of the pages.", *sorted(set(TYPES.values()))),
        }
    }
    return {
        "/v3/status": {"get": _get("getStatus", "How the service is doing.", "Status")},
        "/v3/status/traffic": {"get": _traffic()},
        "/v3/status/sizes": {"get": _sizes(settings)},
        "/v3/customers/lookup": {"post": _lookup(settings)},
        "/schema.graphql": {"get": _schema()},
        **((pages | files) if settings.console.enabled else {}),
    }


def _get(name: str, summary: str, schema: str, *statuses: int) -> Json:
    responses = {"200": answer(summary, schema), **errors("Error", 403, 408, 413, 503, *statuses)}
    return {"operationId": name, "summary": summary, "responses": responses}


def _traffic() -> Json:
    since = {"name": "since", "in": "query", "required": False, "schema": {"type": "number"}}
    described = {**since, "description": "Only points after this time, seconds since the epoch."}
    shown = _get("getTraffic", "Rates and latencies of the last minutes, sampled in memory.", "Traffic", 400)
    return {**shown, "parameters": [described]}


def _sizes(settings: Settings) -> Json:
    listed = {
        "name": "segments",
        "in": "query",
        "required": True,
        "description": f"1 to {SEGMENTS_MAX} segment ids, with commas between them.",
        "schema": {"type": "string", "minLength": 1},
    }
    shown = _get("getSizes", "Sizes of segments over the last day, sampled in memory.", "Sizes", 400)
    text = (
        f"A sample each {settings.console.size_seconds:g} seconds, {settings.console.size_points_max} at most;"
        " none from before the last start."
    )
    return {**shown, "description": text, "parameters": [listed]}


def _lookup(settings: Settings) -> Json:
    value = {"type": "string", "minLength": 1, "maxLength": settings.limits.identifier_bytes_max}
    one = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": dict.fromkeys(settings.identifiers, value),
    }
    return {
        "operationId": "lookUpCustomer",
        "summary": "Every membership of one identifier, the latest decision first.",
        "description": "`source` says what decided: an event, or an import by its id while that is kept.",
        "requestBody": body(f"At most {settings.limits.segments_body_bytes_max} bytes.", (JSON_TYPE, one)),
        "responses": {
            "200": answer("What is known of it.", "Customer"),
            **errors("Error", 400, 403, 408, 413, 415, 503),
        },
    }


def _page(path: str) -> Json:
    name = {"/": "console"}.get(path, path.strip("/"))
    return _file(name, f"The page {path}; it asks for a key itself.", TYPES["html"])


def _file(name: str, summary: str, *media_types: str) -> Json:
    content = {kind.partition(";")[0]: {"schema": _TEXT} for kind in media_types}
    ok = {"description": "The file.", "headers": header_refs("x-request-id"), "content": content}
    not_modified = {"304": empty("The client has it.")}
    responses = {"200": ok, **not_modified, **errors("Error", 400, 404, 408, 413)}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _schema() -> Json:
    text = {
        "description": "The schema.",
        "headers": header_refs("x-request-id"),
        "content": {"text/plain": {"schema": _TEXT}},
    }
    return {
        "operationId": "graphqlSchema",
        "summary": "The GraphQL schema in GraphQL's own language.",
        "security": [],
        "responses": {"200": text, **errors("Error", 408, 413)},
    }


def console_schemas() -> Json:
    """The schemas of status and look-up."""
    segment_ids = {"type": "array", "items": _TEXT}
    membership = {
        "audience_id": _TEXT,
        "segment_ids": segment_ids,
        "state": {"enum": ["qualified", "not_qualified"]},
        "qualified_at": _NUMBER_OR_NOT,
        "updated_at": _NUMBER,
        "source": _TEXT,
    }
    customer = {
        "identifier": _TEXT,
        "value": _TEXT,
        "confidence": {"enum": ["high", "low"]},
        "total": _COUNT,
        "memberships": {"type": "array", "items": ref("Membership")},
    }
    return {"Membership": _closed(membership), "Customer": _closed(customer), **_history_schemas(), **_status_schemas()}


def _history_schemas() -> Json:
    point = {
        "at": _NUMBER,
        "events_per_second": _closed(dict.fromkeys(OUTCOMES, _NUMBER)),
        "queries_per_second": _NUMBER,
        "query_seconds": {"type": "array", "items": _NUMBER_OR_NOT, "description": "At each of the quantiles."},
    }
    pair = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2, "description": "Time and size."}
    ring = {"seconds": _NUMBER, "points_max": _COUNT}
    traffic = {
        **ring,
        "outcomes": {"const": list(OUTCOMES)},
        "quantiles": {"const": list(QUANTILES)},
        "points": {"type": "array", "items": _closed(point)},
    }
    sizes = {**ring, "sizes": {"type": "object", "additionalProperties": {"type": "array", "items": pair}}}
    return {"Traffic": _closed(traffic), "Sizes": _closed(sizes)}


def _status_schemas() -> Json:
    checkpoint = _closed({"ended_at": _NUMBER, "seconds": _NUMBER, "changes": _COUNT})
    disk = _closed(dict.fromkeys(("total_bytes", "free_bytes", "index_bytes", "journal_bytes"), _COUNT))
    identifier = _closed({"name": _TEXT, "confidence": {"enum": ["high", "low"]}})
    status = {
        "version": _TEXT,
        "python": _TEXT,
        "now": _NUMBER,
        "started_at": _NUMBER,
        "not_ready": {"type": ["string", "null"], "description": "Why it takes no requests, or no writes."},
        "passthrough_enabled": {"type": "boolean"},
        "identifiers": {"type": "array", "items": identifier},
        "limits": {"type": "object", "additionalProperties": _NUMBER},
        "store": {"type": "object", "additionalProperties": _COUNT},
        "commits": _closed({"failures": _COUNT, "last_seconds": _NUMBER_OR_NOT}),
        "checkpoints": _or_null(_closed({"failures": _COUNT, "last": _or_null(checkpoint)})),
        "disk": _or_null(disk),
        "cluster": _or_null(_cluster_schema()),
    }
    return {"Status": _closed(status)}


def _cluster_schema() -> Json:
    server = {
        "address": _TEXT,
        "role": {"enum": ["primary", "replica"]},
        "answers": {"type": "boolean"},
        "partitions": _COUNT,
        "replicas": _COUNT,
    }
    counts = ("partitions", "partitions_away", "registry_version", "registry_failures", "outbox_bytes")
    cluster = {
        "servers": {"type": "array", "items": _closed(server)},
        **dict.fromkeys((*counts, "recovered_changes", "reads_running"), _COUNT),
        "registry_age_seconds": _NUMBER,
        "last_recovery_at": _NUMBER_OR_NOT,
        "retries": {"type": "object", "additionalProperties": _COUNT},
    }
    return _closed(cluster)


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _closed(properties: dict[str, Any]) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}
