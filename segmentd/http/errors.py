"""Errors on the wire: one table from the class of a refusal to its status, and the shapes that clients know.

Owns every error body. Never decides *whether* something is refused.

Invariants:
1. Every `Refusal` has a row here, found by its class or the nearest base class.
2. Each API keeps its own shape (events, segments, GraphQL); `Accept: application/problem+json` gets RFC 9457.
3. `{"message":"Forbidden"}` says no more than that; the request id is in the header.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec

from segmentd.domain.refusals import (
    Forbidden,
    InvalidEvents,
    InvalidSegment,
    LimitReached,
    MalformedBody,
    PassthroughDisabled,
    RateLimited,
    Refusal,
    RevisionMismatch,
    SegmentNotFound,
    TooLarge,
    TooManyWrongKeys,
    Unavailable,
    UnsupportedMediaType,
)
from segmentd.domain.wholelist import UnreadableFile
from segmentd.http.exchange import JSON, PROBLEM_JSON, Answer, Header, Request
from segmentd.http.negotiation import names


class EdgeRefusal(Refusal):
    """A refusal that only HTTP knows; it carries its own headers."""

    code: ClassVar[str] = "REFUSED"
    headers: tuple[Header, ...] = ()


class NoSuchPath(EdgeRefusal):
    """Nothing is served at this path."""

    code = "NO_SUCH_PATH"


class NotFound(EdgeRefusal):
    """The path names a thing that is not there."""

    code = "NOT_FOUND"


class MethodNotAllowed(EdgeRefusal):
    """The path is served, but not for this method."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = (("allow", allow),)


class NotAcceptable(EdgeRefusal):
    """None of the media types that the client accepts is offered."""

    code = "NOT_ACCEPTABLE"


class InvalidRequest(EdgeRefusal):
    """A header, a query field or a parameter cannot be read."""

    code = "INVALID_REQUEST"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class AlreadyExists(EdgeRefusal):
    """If-None-Match asked that there be no such segment (revision)."""

    code = "ALREADY_EXISTS"


class PreconditionFailed(EdgeRefusal):
    """If-Match names no present revision."""

    code = "PRECONDITION_FAILED"


class RequestTimeout(EdgeRefusal):
    """The body did not arrive in time."""

    code = "REQUEST_TIMEOUT"


class Conflict(EdgeRefusal):
    """The thing is in a state that does not allow it."""

    code = "CONFLICT"


class MalformedRequest(EdgeRefusal):
    """The bytes are no HTTP request."""

    code = "MALFORMED_REQUEST"


class HeadTooLarge(EdgeRefusal):
    """The request line and the headers are too large."""

    code = "HEAD_TOO_LARGE"


class UnknownCoding(EdgeRefusal):
    """A transfer coding that is not read here."""

    code = "UNKNOWN_TRANSFER_CODING"


class BodyBrokenOff(EdgeRefusal):
    """The client left before the body that a handler was reading was whole. Nobody is there to be told."""

    code = "BODY_BROKEN_OFF"


def body_timeout(seconds_max: float) -> RequestTimeout:
    """What every road says when a body stops coming."""
    return RequestTimeout(
        f"The body did not arrive within {seconds_max:g} seconds ([server] request_read_seconds_max)."
    )


class Failed(EdgeRefusal):
    """Something broke here; the log has the reason under the request id."""

    code = "INTERNAL_ERROR"


STATUS_OF: Final[dict[type[Refusal], int]] = {
    MalformedBody: 400,
    InvalidEvents: 400,
    InvalidSegment: 400,
    InvalidRequest: 400,
    BodyBrokenOff: 400,
    MalformedRequest: 400,
    LimitReached: 400,
    Forbidden: 403,
    PassthroughDisabled: 403,
    NoSuchPath: 404,
    NotFound: 404,
    SegmentNotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    RequestTimeout: 408,
    Conflict: 409,
    AlreadyExists: 412,
    PreconditionFailed: 412,
    RevisionMismatch: 412,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    RateLimited: 429,
    TooManyWrongKeys: 429,
    HeadTooLarge: 431,
    Failed: 500,
    UnknownCoding: 501,
    Unavailable: 503,  # Overloaded, ShuttingDown, StoreUnavailable
}

_UNREAD_BODY: Final = frozenset({408, 413})
"""After these the rest of the body is not waited for, so the connection cannot be used again."""


def status_of(refusal: Refusal) -> int:
    """The HTTP status of a refusal. Raises KeyError for one without a row, which is a mistake in this module."""
    for base in type(refusal).__mro__:
        if base in STATUS_OF:
            return STATUS_OF[base]
    raise KeyError(type(refusal))


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as `2026-11-23T15:22:40.450Z`."""
    ms = int(seconds * 1000)
    return f"{_whole_seconds(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=4)
def _whole_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class Failure(msgspec.Struct):
    """A refusal together with what the shapes need to show it."""

    refusal: Refusal
    status: int
    request_id: str
    now_seconds: float


Shape = Callable[[Failure], Any]


def events_shape(failure: Failure) -> Any:
    """`{"title","status","timestamp","detail","request_id"}`, as ODP's events API."""
    refusal = failure.refusal
    if failure.status == 403:
        return {"message": refusal.message}
    detail: dict[str, Any] = {"message": refusal.message}
    if isinstance(refusal, InvalidEvents):
        detail = {"invalids": refusal.invalids}
        if refusal.total > len(refusal.invalids):
            detail["message"] = f"{refusal.message}; the first {len(refusal.invalids)} are listed"
    return {
        "title": HTTPStatus(failure.status).phrase,
        "status": failure.status,
        "timestamp": timestamp(failure.now_seconds),
        "detail": detail | _particulars(refusal),
        "request_id": failure.request_id,
    }


def plain_shape(failure: Failure) -> Any:
    """`{"status","request_id","message"}`, as ODP's segments API; `field`, `reason` and limits where there are any."""
    refusal = failure.refusal
    if failure.status == 403:
        return {"message": refusal.message}
    shown = {"status": failure.status, "request_id": failure.request_id, "message": refusal.message}
    if failure.status != 404:
        shown["reason"] = refusal.code
    return shown | _particulars(refusal)


def graphql_shape(failure: Failure) -> Any:
    """`{"errors":[{"message","extensions"}]}` without `data`: the request never became a GraphQL request."""
    refusal = failure.refusal
    if failure.status == 403:
        return {"message": refusal.message}
    extensions = {"code": refusal.code, "request_id": failure.request_id} | _particulars(refusal)
    return {"errors": [{"message": refusal.message, "extensions": extensions}]}


def problem_shape(failure: Failure) -> Any:
    """RFC 9457 problem details; `reason` is the refusal's code, `type` says that the status tells the kind."""
    refusal = failure.refusal
    shown: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(failure.status).phrase,
        "status": failure.status,
        "detail": refusal.message,
        "reason": refusal.code,
        "request_id": failure.request_id,
    }
    if isinstance(refusal, InvalidEvents):
        shown["invalids"] = refusal.invalids
    return shown | _particulars(refusal)


def answer_to(refusal: Refusal, request: Request, shape: Shape, now_seconds: float) -> Answer:
    """The answer that tells `request` about `refusal`, in `shape` unless the client asked for problem details."""
    failure = Failure(refusal, status_of(refusal), request.request_id, now_seconds)
    wants_problem = names(request.headers.get("accept", ""), PROBLEM_JSON[1])
    body = msgspec.json.encode((problem_shape if wants_problem else shape)(failure))
    headers = (PROBLEM_JSON if wants_problem else JSON, *_headers(refusal))
    return Answer(failure.status, body, headers, close=failure.status in _UNREAD_BODY)


def _headers(refusal: Refusal) -> tuple[Header, ...]:
    if isinstance(refusal, Unavailable):
        return (("retry-after", str(refusal.retry_after_seconds)),)
    return refusal.headers if isinstance(refusal, EdgeRefusal) else ()


def _particulars(refusal: Refusal) -> dict[str, Any]:
    """The machine-readable part of a refusal."""
    found: dict[str, Any] = {}
    if isinstance(refusal, InvalidSegment | InvalidRequest | LimitReached):
        found["field"] = refusal.field
    if isinstance(refusal, UnreadableFile) and refusal.line is not None:
        found["line"] = refusal.line
    if isinstance(refusal, TooLarge | LimitReached):
        found |= {"limit_name": refusal.limit_name, "limit": refusal.limit}
    return found
