"""`/openapi.json`: every route, every answer, every header, as OpenAPI 3.1.

Owns the paths; the schemas stand in `openapi_schemas`. Limits come from the settings, so that the document is true for
the server that gives it. A test holds its paths and methods together with the route table.
"""

from __future__ import annotations

from segmentd import __version__
from segmentd.http.openapi_console import console_paths, console_schemas
from segmentd.http.openapi_imports import import_paths, import_schemas
from segmentd.http.openapi_links import add_links
from segmentd.http.openapi_members import member_paths, member_schemas
from segmentd.http.openapi_parts import (
    JSON_TYPE,
    Json,
    answer,
    body,
    empty,
    errors,
    header_parameter,
    header_refs,
    options,
    ref,
)
from segmentd.http.openapi_schemas import headers, schemas
from segmentd.settings import LimitsSettings, Settings


def document(settings: Settings) -> Json:
    """The OpenAPI document of a server with these settings."""
    limits = settings.limits
    shown: Json = {
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
            **import_paths(settings),
            **member_paths(settings),
            **console_paths(settings),
            **_operations(),
        },
        "components": {
            "schemas": schemas(settings) | import_schemas(settings) | member_schemas() | console_schemas(),
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
    add_links(shown["paths"])
    return shown


def _events(limits: LimitsSettings) -> Json:
    return {
        "post": {
            "operationId": "sendEvents",
            "summary": f"Take 1 to {limits.events_per_request_max} events, all or none.",
            "description": "202 means that every event is on disk and visible to every query that starts after it.",
            "requestBody": body(
                f"At most {limits.events_body_bytes_max} bytes as sent, {limits.events_inflated_bytes_max} inflated.",
                (JSON_TYPE, ref("Events")),
                ("application/x-ndjson", {"type": "string", "description": "One event a line."}),
            ),
            "responses": {
                "202": answer("Every event is durable and visible.", "Accepted"),
                **errors("EventsError", 400, 403, 408, 413, 415, 503),
            },
        },
        "options": options(),
    }


def _graphql(limits: LimitsSettings) -> Json:
    types = (JSON_TYPE, "application/graphql-response+json")
    answers = {
        "200": answer(
            "Executed; or not executed, for clients of application/json.", "GraphQLAnswer", media_types=types
        ),
        **errors("GraphQLAnswer", 400, 403, 406, 408, 413, 415, 503),
    }
    answers["400"]["content"][types[1]] = {"schema": ref("GraphQLAnswer")}
    return {
        "get": {
            "operationId": "queryByGet",
            "summary": "Run a GraphQL query given in the query string.",
            "parameters": [
                {"name": "query", "in": "query", "required": True, "schema": {"type": "string"}},
                {"name": "operationName", "in": "query", "schema": {"type": "string"}},
                {"name": "variables", "in": "query", "content": {JSON_TYPE: {"schema": {"type": ["object", "null"]}}}},
                {"name": "extensions", "in": "query", "content": {JSON_TYPE: {"schema": {"type": ["object", "null"]}}}},
            ],
            "responses": answers,
        },
        "post": {
            "operationId": "query",
            "summary": "Run a GraphQL query.",
            "requestBody": body(f"At most {limits.graphql_body_bytes_max} bytes.", (JSON_TYPE, ref("GraphQLRequest"))),
            "responses": answers,
        },
        "options": options(),
    }


def _list_segments() -> Json:
    return {
        "operationId": "listSegments",
        "summary": "The ids of all segments, sorted.",
        "responses": {"200": answer("All ids.", "SegmentIds"), **errors("Error", 403, 408, 413, 503)},
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
        header_parameter("if-match", "Write only if the segment has one of these revisions.", tags),
        header_parameter("if-none-match", "`*`: write only if there is no such segment.", tags),
    ]


def _segment(limits: LimitsSettings) -> Json:
    def put(method: str) -> Json:
        return {
            "operationId": f"{method}Segment",
            "summary": "Create or update a segment, durably; the revision rises only if something changed.",
            "parameters": _conditions(),
            "requestBody": body(f"At most {limits.segments_body_bytes_max} bytes.", (JSON_TYPE, ref("SegmentWrite"))),
            "responses": {
                "200": answer("Updated, or already so.", "Revision", "etag"),
                "201": answer("Created.", "Revision", "etag", "location"),
                **errors("Error", 400, 403, 408, 412, 413, 415, 503),
            },
        }

    return {
        "parameters": [_id_parameter(limits)],
        "get": {
            "operationId": "getSegment",
            "summary": "One segment.",
            "parameters": _conditions()[1:],
            "responses": {
                "200": answer("The segment.", "Segment", "etag"),
                "304": empty("The client has this revision.", "etag"),
                **errors("Error", 400, 403, 404, 408, 413, 503),
            },
        },
        "put": put("put"),
        "post": put("post"),
        "delete": {
            "operationId": "deleteSegment",
            "summary": "Delete a segment, durably; the members of its audience stay.",
            "parameters": _conditions(),
            "responses": {
                "200": answer("The ids that remain.", "SegmentIds"),
                **errors("Error", 400, 403, 404, 408, 412, 413, 503),
            },
        },
    }


def _validate(limits: LimitsSettings) -> Json:
    return {
        "parameters": [_id_parameter(limits)],
        "post": {
            "operationId": "validateSegment",
            "summary": "Say whether a definition could be put; nothing is written.",
            "requestBody": body(f"At most {limits.segments_body_bytes_max} bytes.", (JSON_TYPE, ref("SegmentWrite"))),
            "responses": {
                "200": answer("It could.", "Empty"),
                **errors("Error", 400, 403, 408, 413, 415, 503),
            },
        },
    }


def _operations() -> Json:
    def get(name: str, summary: str, ok: Json, more: Json | None = None) -> Json:
        responses = {"200": ok, **(more or {}), **errors("Error", 408, 413)}
        return {"get": {"operationId": name, "summary": summary, "security": [], "responses": responses}}

    text = {
        "description": "All metrics.",
        "headers": header_refs("x-request-id"),
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")},
    }
    unready = {"503": answer("Why it is not ready.", "Error", "retry-after")}
    return {
        "/healthz": get("healthz", "Whether the process is alive.", answer("Alive.", "State")),
        "/readyz": get("readyz", "Whether it is recovered and accepting.", answer("Ready.", "State"), unready),
        "/metrics": get("metrics", "Metrics for Prometheus; no key is needed.", text),
        "/openapi.json": get("openapi", "This document.", answer("OpenAPI 3.1.", "Document")),
    }
