"""The schemas and headers of the OpenAPI document. The shapes themselves are made in `errors` and in the handlers."""

from __future__ import annotations

from typing import Any, Final

from segmentd.settings import Settings

Json = dict[str, Any]

_TIMESTAMP: Final[Json] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
_TEXT: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "integer"}


def _object(required: tuple[str, ...] = (), *, closed: bool = False, **properties: Json) -> Json:
    shape: Json = {"type": "object", "properties": properties}
    if required:
        shape["required"] = list(required)
    if closed:
        shape["additionalProperties"] = False
    return shape


def headers() -> Json:
    """The headers of answers."""
    described = {
        "x-request-id": ("Names this request in the log; the client's own if it sent a sane one.", _TEXT),
        "retry-after": ("Seconds to wait before sending the same request again.", {"type": "string"}),
        "ratelimit-policy": ("What the key may ask for; only for a key that has limits.", _TEXT),
        "ratelimit": ("What is left of that, and the seconds until all of it is back.", _TEXT),
        "allow": ("The methods that are served.", _TEXT),
        "etag": ("The revision, quoted.", {"type": "string", "pattern": '^"[0-9]+"$'}),
        "location": ("Where the new thing is.", _TEXT),
    }
    return {name: {"description": text, "schema": schema} for name, (text, schema) in described.items()}


def schemas(settings: Settings) -> Json:
    """All schemas by name."""
    return {**_event_schemas(settings), **_segment_schemas(settings), **_graphql_schemas(), **_common_schemas()}


def _event_schemas(settings: Settings) -> Json:
    limits = settings.limits
    passthrough = _object(
        ("type", "action", "identifiers", "data"),
        type={"const": "passthrough"},
        action={"enum": ["qualify", "disqualify"]},
        identifiers=_identifiers(settings),
        data=_object(
            ("audience_id",),
            audience_id=_audience_id(settings),
            ts={
                "type": ["number", "null"],
                "minimum": 0,
                "description": "Seconds since the epoch, at most three decimals, at most"
                f" {settings.events.future_seconds_max} seconds ahead of the clock. Missing: the time of receipt.",
            },
        ),
    )
    other = _object(("type",), type={"type": "string", "minLength": 1, "not": {"const": "passthrough"}})
    event = {"anyOf": [passthrough, {**other, "description": "Any other type is accepted, counted and dropped."}]}
    many = {"type": "array", "minItems": 1, "maxItems": limits.events_per_request_max, "items": {"$ref": _EVENT}}
    invalid = _object(
        ("event", "field", "reason", "message"), closed=True, event=_NUMBER, field=_TEXT, reason=_TEXT, message=_TEXT
    )
    detail = _object(message=_TEXT, line=_NUMBER, invalids={"type": "array", "items": invalid})
    return {
        "Event": event,
        "Events": {"anyOf": [{"$ref": _EVENT}, many]},
        "Accepted": _object(
            ("title", "status", "timestamp"),
            closed=True,
            title={"const": "Accepted"},
            status={"const": 202},
            timestamp=_TIMESTAMP,
        ),
        "EventsError": _object(
            ("title", "status", "timestamp", "detail", "request_id"),
            closed=True,
            title=_TEXT,
            status=_NUMBER,
            timestamp=_TIMESTAMP,
            detail=detail,
            request_id=_TEXT,
        ),
    }


_EVENT: Final = "#/components/schemas/Event"


def _identifiers(settings: Settings) -> Json:
    """Exactly one high-confidence identifier; low-confidence ones beside it are ignored."""
    value = {
        "type": "string",
        "minLength": 1,
        "maxLength": settings.limits.identifier_bytes_max,
        "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
        "description": "The length is counted in bytes of UTF-8.",
    }
    high = [name for name, kind in settings.identifiers.items() if kind.confidence == "high"]
    return {
        "type": "object",
        "properties": dict.fromkeys(settings.identifiers, value),
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in high],
    }


def _audience_id(settings: Settings) -> Json:
    return {
        "type": "string",
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.:@+~-]*$",
        "minLength": 1,
        "maxLength": settings.limits.audience_id_chars_max,
    }


def _segment_schemas(settings: Settings) -> Json:
    limits = settings.limits
    external = _object(("external_audience_id",), closed=True, external_audience_id=_audience_id(settings))
    definition = _object(("external",), closed=True, external=external)
    without_nul = {"type": "string", "pattern": r"^[^\x00]*$"}
    description = {**without_nul, "maxLength": limits.description_chars_max}
    metadata = {
        "type": "object",
        "maxProperties": limits.metadata_entries_max,
        "propertyNames": {**without_nul, "maxLength": limits.metadata_key_chars_max},
        "additionalProperties": {**without_nul, "maxLength": limits.metadata_value_chars_max},
    }
    write = _object(
        ("definition",),
        closed=True,
        revision={"description": "Ignored; use If-Match."},
        description={**description, "type": ["string", "null"]},
        metadata={**metadata, "type": ["object", "null"]},
        definition=definition,
    )
    shown = _object(
        ("revision", "description", "metadata", "definition"),
        closed=True,
        revision={"type": "integer", "minimum": 1},
        description=description,
        metadata=metadata,
        definition=definition,
    )
    ids = {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9_]+$"}}
    return {
        "SegmentWrite": write,
        "Segment": shown,
        "SegmentIds": _object(("segment_ids",), closed=True, segment_ids=ids),
        "Revision": _object(("revision",), closed=True, revision={"type": "integer", "minimum": 1}),
        "Empty": _object(closed=True),
    }


def _graphql_schemas() -> Json:
    error = _object(
        ("message",),
        closed=True,
        message=_TEXT,
        locations={"type": "array", "items": _object(line=_NUMBER, column=_NUMBER)},
        path={"type": "array", "items": _TEXT},
        extensions={"type": "object"},
    )
    return {
        "GraphQLRequest": _object(
            ("query",),
            query=_TEXT,
            operationName={"type": ["string", "null"]},
            variables={"type": ["object", "null"]},
            extensions={"type": ["object", "null"]},
        ),
        "GraphQLAnswer": _object(
            closed=True,
            data={"type": ["object", "null"]},
            errors={"type": "array", "minItems": 1, "items": error},
            extensions={"type": "object"},
        ),
    }


def _common_schemas() -> Json:
    limit = {"limit_name": _TEXT, "limit": _NUMBER}
    return {
        "Error": _object(
            ("status", "request_id", "message"),
            closed=True,
            status=_NUMBER,
            request_id=_TEXT,
            message=_TEXT,
            reason=_TEXT,
            field=_TEXT,
            **limit,
        ),
        "Forbidden": _object(("message",), closed=True, message=_TEXT),
        "Problem": _object(
            ("type", "title", "status", "detail", "reason", "request_id"),
            type=_TEXT,
            title=_TEXT,
            status=_NUMBER,
            detail=_TEXT,
            reason=_TEXT,
            request_id=_TEXT,
        ),
        "State": _object(
            ("status",),
            closed=True,
            status=_TEXT,
            followers=_object(("ready", "wanted"), closed=True, ready=_NUMBER, wanted=_NUMBER),
            cluster=_object(("partitions", "away"), closed=True, partitions=_NUMBER, away=_NUMBER),
        ),
        "Document": {"type": "object"},
    }
