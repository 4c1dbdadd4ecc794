"""Reading a request's body: media type, encoding, bound.

Owns the order of these checks for all paths that take a body. Never interprets the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from segmentd.http.exchange import Request
from segmentd.http.inflation import inflate
from segmentd.http.negotiation import content_type

JSON_TYPE: Final = "application/json"
NDJSON_TYPES: Final = ("application/x-ndjson", "application/ndjson")


class BodyRules(msgspec.Struct, frozen=True):
    """What bodies one path takes. missing: the type to assume without Content-Type, or None to refuse."""

    accepted: Sequence[str]
    missing: str | None
    inflated_bytes_max: int
    limit_name: str


def read(request: Request, rules: BodyRules) -> tuple[str, bytes]:
    """(media type, inflated body). Raises UnsupportedMediaType, TooLarge, MalformedBody."""
    media_type = content_type(request.headers.get("content-type"), rules.accepted, missing=rules.missing)
    encoding = request.headers.get("content-encoding")
    if encoding is None:
        return media_type, request.body
    body = inflate(request.body, encoding, limit_bytes=rules.inflated_bytes_max, limit_name=rules.limit_name)
    return media_type, body
