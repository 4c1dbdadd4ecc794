"""Media types: what a client accepts, and what it says that it sends.

Owns the reading of `Accept`, `Content-Type` and `Content-Encoding`. Never reads a body (`inflation.py` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from segmentd.domain.refusals import UnsupportedMediaType

# A longer header is cut; nobody needs more than this to say what they accept.
RANGES_MAX: Final = 32
_UTF8_NAMES: Final = frozenset({"utf-8", "utf8", "us-ascii"})


def quality(accept: str, media_type: str) -> float:
    """How much `accept` wants `media_type`: 0 (not at all) to 1; the most specific range counts (RFC 9110 12.5.1)."""
    main = media_type.partition("/")[0]
    ranked = {media_type: 3, f"{main}/*": 2, "*/*": 1}
    best, wanted = 0, 0.0
    for part in accept.split(",")[:RANGES_MAX]:
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        rank = ranked.get(name, 0)
        if rank > best:
            best, wanted = rank, _quality_value(parameters)
    return wanted


def names(accept: str, media_type: str) -> bool:
    """Whether `accept` asks for `media_type` by name, not merely by a wildcard."""
    return media_type in accept.lower() and quality(accept.replace("*", "-"), media_type) > 0


def choose(accept: str | None, offered: Sequence[str]) -> str | None:
    """The best of `offered` (the first wins ties and where there is no Accept), or None if none is wanted."""
    if not accept:
        return offered[0]
    best = max(offered, key=lambda media_type: quality(accept, media_type))
    return best if quality(accept, best) > 0 else None


def _quality_value(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                number = float(value)
            except ValueError:
                return 0.0
            return 0.0 if math.isnan(number) else min(max(number, 0.0), 1.0)
    return 1.0


def content_type(header: str | None, accepted: Sequence[str], *, missing: str | None) -> str:
    """The media type of a body.

    accepted: the lower-case types that are read here. missing: the type to assume without the header; None: refuse.
    Raises UnsupportedMediaType: another type, or another charset than UTF-8.
    """
    if header is not None and header in accepted:
        return header
    if not header or not header.strip():
        if missing is None:
            raise UnsupportedMediaType(f"Content-Type is missing; accepted: {', '.join(accepted)}.")
        return missing
    name, *parameters = (piece.strip() for piece in header.split(";"))
    if name.lower() not in accepted:
        raise UnsupportedMediaType(f"Content-Type {name[:100]} is not read here; accepted: {', '.join(accepted)}.")
    for parameter in parameters:
        attribute, _, value = parameter.partition("=")
        charset = value.strip().strip('"')
        if attribute.strip().lower() == "charset" and charset.lower() not in _UTF8_NAMES:
            raise UnsupportedMediaType(f"The charset {charset[:40]} is not read here; accepted: utf-8.")
    return name.lower()
