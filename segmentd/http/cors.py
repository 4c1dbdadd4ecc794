"""CORS: which web pages may read the answers of the public paths.

Owns the preflight answer and the headers. Keys still decide what a request may do; this only tells browsers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from segmentd.http.exchange import Answer, Header, Request

REQUEST_HEADERS: Final = "accept, content-encoding, content-type, traceparent, tracestate, x-api-key, x-request-id"
EXPOSED_HEADERS: Final = "ratelimit, ratelimit-policy, retry-after, x-request-id"
_VARY: Final = ("vary", "Origin")
_ANY: Final = "*"


class Cors:
    """The configured origins. `*` lets every page in; no cookies or other credentials are ever used."""

    def __init__(self, origins: Sequence[str], max_age_seconds: int) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)
        self._max_age_seconds = max_age_seconds

    def headers(self, request: Request) -> tuple[Header, ...]:
        """What every answer on a public path says."""
        allowed = self._allowed(request)
        if allowed is None:
            return (_VARY,)
        return (_VARY, ("access-control-allow-origin", allowed), ("access-control-expose-headers", EXPOSED_HEADERS))

    def preflight(self, request: Request, allow: str) -> Answer:
        """The answer to OPTIONS, which needs no key: a browser sends none with its preflight."""
        if self._allowed(request) is None or "access-control-request-method" not in request.headers:
            return Answer(204, headers=(("allow", allow),))
        return Answer(
            204,
            headers=(
                ("allow", allow),
                ("access-control-allow-methods", allow),
                ("access-control-allow-headers", REQUEST_HEADERS),
                ("access-control-max-age", str(self._max_age_seconds)),
            ),
        )

    def _allowed(self, request: Request) -> str | None:
        """The origin to allow, or None: no origin was named, or it is not one of ours."""
        origin = request.headers.get("origin")
        if origin is None:
            return None
        if _ANY in self._origins:
            return _ANY
        return origin if origin.lower() in self._origins else None
