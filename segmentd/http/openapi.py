"""`/openapi.json`: every route, every answer, every header, as OpenAPI 3.1.

Owns the paths; the schemas stand in `openapi_schemas`. Limits come from the settings, so that the document is true for
the server that gives it. A test holds its paths and methods together with the route table.
"""

from __future__ import annotations

from typing import Any, Final

from segmentd import __version__
from segmentd.http.inflation import ENCODINGS
from segmentd.http.openapi_schemas import headers, schemas
from segmentd.settings import LimitsSettings, Settings

Json = dict[str, Any]

_JSON: Final = "application/json"
_ERRORS: Final = {
    400: "The request cannot be read or is invalid; nothing was applied.",
    403: "No key, an unknown key, or a key without the right; or a functionality that is switched off.",
    404: "There is no such segment.",
    405: "The path is served, but not for this method.",
    406: "None of the accepted media types is offered.",
    408: "The body did not arrive in time.",
    412: "If-Match or If-None-Match does not allow it; nothing was changed.",
    413: "The body is too large, as sent or inflated; the answer names the limit.",
    415: "The media type, charset or encoding is not read here; the answer names those that are.",
    500: "Something failed; the log has the reason under the request id.",
    503: "Overloaded, starting, shutting down or unable to write; nothing was applied. Send it again.",
}


def document(settings: Settings) -> Json:
    """The OpenAPI document of a server with these settings."""
    limits = settings.limits
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "segmentd",
            "version": __version__,
            "description": "Audience memberships: events in, qualified segments out (Optimizely Data Platform v3).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": {
            "/v3/events": _events(limits),
            "/v3/graphql": _graphql(limits),
            "/v3/segments": {"get": _list_segments()},
            "/v3/segments/{segment_id}": _segment(limits),
            "/v3/segments/{segment_id}:validate": _validate(limits),
            **_operations(),
        },
        "components": {
            "schemas": schemas(settings),
            "headers": headers(),
            "securitySchemes": {
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "public keys send events and read GraphQL; private keys may do everything.",
                }
            },
        },
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _header_refs(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _answer(description: str, schema: str, *header_names: str, media_types: tuple[str, ...] = (_JSON,)) -> Json:
    return {
        "description": description,
        "headers": _header_refs("x-request-id", *header_names),
        "content": {media_type: {"schema": _ref(schema)} for media_type in media_types},
    }


def _empty(description: str, *header_names: str) -> Json:
    return {"description": description, "headers": _header_refs("x-request-id", *header_names)}


def _errors(shape: str, *statuses: int) -> Json:
    """Answers of these statuses: the API's own shape, or problem details for who asks for them."""
    found: Json = {}
    for status in sorted({*statuses, 405, 500}):
        extra = {405: ("allow",), 503: ("retry-after",)}.get(status, ())
        own = "Forbidden" if status == 403 else shape
        answer = _answer(_ERRORS[status], own, *extra)
        answer["content"]["application/problem+json"] = {"schema": _ref("Problem")}
        found[str(status)] = answer
    return found


def _body(description: str, *contents: tuple[str, Json]) -> Json:
    return {
        "required": True,
        "description": f"{description} Content-Encoding may be {', '.join(ENCODINGS)}.",
        "content": {media_type: {"schema": schema} for media_type, schema in contents},
    }


def _options() -> Json:
    return {
        "summary": "What is allowed here; also the answer to a browser's preflight.",
        "security": [],
        "responses": {"204": _empty("The allowed methods.", "allow")},
    }


def _header_parameter(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _events(limits: LimitsSettings) -> Json:
    return {
        "post": {
            "operationId": "sendEvents",
            "summary": f"Take 1 to {limits.events_per_request_max} events, all or none.",
            "description": "202 means that every event is on disk and visible to every query that starts after it.",
            "requestBody": _body(
                f"At most {limits.events_body_bytes_max} bytes as sent, {limits.events_inflated_bytes_max} inflated.",
                (_JSON, _ref("Events")),
                ("application/x-ndjson", {"type": "string", "description": "One event a line."}),
            ),
            "responses": {
                "202": _answer("Every event is durable and visible.", "Accepted"),
                **_errors("EventsError", 400, 403, 408, 413, 415, 503),
            },
        },
        "options": _options(),
    }


def _graphql(limits: LimitsSettings) -> Json:
    types = (_JSON, "application/graphql-response+json")
    answers = {
        "200": _answer(
            "Executed; or not executed, for clients of application/json.", "GraphQLAnswer", media_types=types
        ),
        **_errors("GraphQLAnswer", 400, 403, 406, 408, 413, 415, 503),
    }
    answers["400"]["content"][types[1]] = {"schema": _ref("GraphQLAnswer")}
    return {
        "get": {
            "operationId": "queryByGet",
            "summary": "Run a GraphQL query given in the query string.",
            "parameters": [
                {"name": "query", "in": "query", "required": True, "schema": {"type": "string"}},
                {"name": "operationName", "in": "query", "schema": {"type": "string"}},
                {"name": "variables", "in": "query", "content": {_JSON: {"schema": {"type": ["object", "null"]}}}},
                {"name": "extensions", "in": "query", "content": {_JSON: {"schema": {"type": ["object", "null"]}}}},
            ],
            "responses": answers,
        },
        "post": {
            "operationId": "query",
            "summary": "Run a GraphQL query.",
            "requestBody": _body(f"At most {limits.graphql_body_bytes_max} bytes.", (_JSON, _ref("GraphQLRequest"))),
            "responses": answers,
        },
        "options": _options(),
    }


def _list_segments() -> Json:
    return {
        "operationId": "listSegments",
        "summary": "The ids of all segments, sorted.",
        "responses": {"200": _answer("All ids.", "SegmentIds"), **_errors("Error", 403, 408, 413, 503)},
    }


def _id_parameter(limits: LimitsSettings) -> Json:
    return {
        "name": "segment_id",
        "in": "path",
        "required": True,
        "description": "Compared in lower case.",
        "schema": {
            "type": "string",
            "pattern": "^[A-Za-z0-9_]+$",
            "minLength": 1,
            "maxLength": limits.segment_id_chars_max,
        },
    }


def _conditions() -> list[Json]:
    tags = {"type": "string", "pattern": r'^(\*|"[0-9]+"(, ?"[0-9]+")*)$', "maxLength": 512}
    return [
        _header_parameter("if-match", "Write only if the segment has one of these revisions.", tags),
        _header_parameter("if-none-match", "`*`: write only if there is no such segment.", tags),
    ]


def _segment(limits: LimitsSettings) -> Json:
    def put(method: str) -> Json:
        return {
            "operationId": f"{method}Segment",
            "summary": "Create or update a segment, durably; the revision rises only if something changed.",
            "parameters": _conditions(),
            "requestBody": _body(f"At most {limits.segments_body_bytes_max} bytes.", (_JSON, _ref("SegmentWrite"))),
            "responses": {
                "200": _answer("Updated, or already so.", "Revision", "etag"),
                "201": _answer("Created.", "Revision", "etag", "location"),
                **_errors("Error", 400, 403, 408, 412, 413, 415, 503),
            },
        }

    return {
        "parameters": [_id_parameter(limits)],
        "get": {
            "operationId": "getSegment",
            "summary": "One segment.",
            "parameters": _conditions()[1:],
            "responses": {
                "200": _answer("The segment.", "Segment", "etag"),
                "304": _empty("The client has this revision.", "etag"),
                **_errors("Error", 400, 403, 404, 408, 413, 503),
            },
        },
        "put": put("put"),
        "post": put("post"),
        "delete": {
            "operationId": "deleteSegment",
            "summary": "Delete a segment, durably; the members of its audience stay.",
            "parameters": _conditions(),
            "responses": {
                "200": _answer("The ids that remain.", "SegmentIds"),
                **_errors("Error", 400, 403, 404, 408, 412, 413, 503),
            },
        },
    }


def _validate(limits: LimitsSettings) -> Json:
    return {
        "parameters": [_id_parameter(limits)],
        "post": {
            "operationId": "validateSegment",
            "summary": "Say whether a definition could be put; nothing is written.",
            "requestBody": _body(f"At most {limits.segments_body_bytes_max} bytes.", (_JSON, _ref("SegmentWrite"))),
            "responses": {
                "200": _answer("It could.", "Empty"),
                **_errors("Error", 400, 403, 408, 413, 415, 503),
            },
        },
    }


def _operations() -> Json:
    def get(name: str, summary: str, ok: Json, more: Json | None = None) -> Json:
        responses = {"200": ok, **(more or {}), **_errors("Error", 408, 413)}
        return {"get": {"operationId": name, "summary": summary, "security": [], "responses": responses}}

    text = {
        "description": "All metrics.",
        "headers": _header_refs("x-request-id"),
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")},
    }
    unready = {"503": _answer("Why it is not ready.", "Error", "retry-after")}
    return {
        "/healthz": get("healthz", "Whether the process is alive.", _answer("Alive.", "State")),
        "/readyz": get("readyz", "Whether it is recovered and accepting.", _answer("Ready.", "State"), unready),
        "/metrics": get("metrics", "Metrics for Prometheus; no key is needed.", text),
        "/openapi.json": get("openapi", "This document.", _answer("OpenAPI 3.1.", "Document")),
    }
