"""What the OpenAPI document is put together from: references, answers, errors, bodies."""

from __future__ import annotations

from typing import Any, Final

from segmentd.http.inflation import ENCODINGS

Json = dict[str, Any]

JSON_TYPE: Final = "application/json"
_ERRORS: Final = {
    400: "The request cannot be read or is invalid; nothing was applied.",
    403: "No key, an unknown key, or a key without the right; or a functionality that is switched off.",
    404: "There is no such thing.",
    405: "The path is served, but not for this method.",
    406: "None of the accepted media types is offered.",
    408: "The body did not arrive in time.",
    409: "It is in a state that does not allow this; nothing was changed.",
    412: "If-Match or If-None-Match does not allow it; nothing was changed.",
    413: "The body is too large, as sent or inflated; the answer names the limit.",
    415: "The media type, charset or encoding is not read here; the answer names those that are.",
    429: "The key may not send so much, or its address tried too many unknown ones; nothing was applied.",
    500: "Something failed; the log has the reason under the request id.",
    503: (
        "Overloaded, starting, shutting down or unable to write. Nothing was applied, unless the message says that the"
        " disk failed in the middle of writing and the outcome is unknown. Sending the identical request again is right"
        " in any case."
    ),
}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def header_refs(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def answer(description: str, schema: str, *header_names: str, media_types: tuple[str, ...] = (JSON_TYPE,)) -> Json:
    return {
        "description": description,
        "headers": header_refs("x-request-id", *header_names),
        "content": {media_type: {"schema": ref(schema)} for media_type in media_types},
    }


def empty(description: str, *header_names: str) -> Json:
    return {"description": description, "headers": header_refs("x-request-id", *header_names)}


def errors(shape: str, *statuses: int) -> Json:
    """Answers of these statuses: the API's own shape, or problem details for who asks for them.

    Whoever may get 403 has sent a key, so there is 429 as well.
    """
    found: Json = {}
    for status in sorted({*statuses, 405, 500, *((429,) if 403 in statuses else ())}):
        extra = {405: ("allow",), 429: ("retry-after", "ratelimit", "ratelimit-policy"), 503: ("retry-after",)}
        own = "Forbidden" if status == 403 else shape
        shown = answer(_ERRORS[status], own, *extra.get(status, ()))
        shown["content"]["application/problem+json"] = {"schema": ref("Problem")}
        found[str(status)] = shown
    return found


def body(description: str, *contents: tuple[str, Json]) -> Json:
    return {
        "required": True,
        "description": f"{description} Content-Encoding may be {', '.join(ENCODINGS)}.",
        "content": {media_type: {"schema": schema} for media_type, schema in contents},
    }


def options() -> Json:
    return {
        "summary": "What is allowed here; also the answer to a browser's preflight.",
        "security": [],
        "responses": {"204": empty("The allowed methods.", "allow")},
    }


def header_parameter(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
