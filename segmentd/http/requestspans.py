"""What a trace says of a request, and nothing more: see the first invariant of `segmentd.tracing`."""

from __future__ import annotations

from typing import Final

from segmentd.http.exchange import Answer, Request
from segmentd.http.routing import UNMATCHED, Match
from segmentd.tracing import Span, Tracing, Value

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def method_of(request: Request) -> str:
    """One of a few words, whatever the client has sent."""
    return request.method if request.method in _METHODS else "other"


def begin_span(tracing: Tracing, request: Request, match: Match, traceparent: str | None) -> Span | None:
    """None where this request is not traced."""
    return tracing.request(method_of(request), UNMATCHED if match.route is None else match.route.template, traceparent)


def end_span(span: Span, request: Request, answer: Answer) -> None:
    """Only what failed here is marked as failed: a refusal is an answer too."""
    attributes: dict[str, Value] = {
        "http.response.status_code": answer.status,
        "http.request.body.size": len(request.body),
        "http.response.body.size": len(answer.body),
        "segmentd.road": request.road,
    }
    if request.key is not None:
        attributes["segmentd.key"] = request.key.id
    span.end(attributes, failed=answer.status >= 500)
