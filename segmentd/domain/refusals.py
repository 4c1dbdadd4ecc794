"""The closed vocabulary of what segmentd refuses, and why.

A refusal says that *nothing was applied* and that the caller can do something about it. It is raised at the edge of
the domain and mapped to HTTP by one table (`segmentd.http.errors`). Anything that is not a refusal is a failure and
propagates.
"""

from typing import ClassVar

import msgspec


class InvalidEvent(msgspec.Struct, frozen=True):
    """One thing that is wrong with one event of a request."""

    event: int
    """Position in the request, from 0."""
    field: str
    """Path inside the event such as `data.ts`; empty for the event as a whole."""
    reason: str
    """Stable upper-case code, for programs."""
    message: str
    """What is wrong and what would be right, for people."""


class Refusal(Exception):
    """Base of all refusals; `code` is stable and upper case, `message` is for people."""

    code: ClassVar[str] = "REFUSED"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class MalformedBody(Refusal):
    """The body as a whole cannot be read."""

    code = "MALFORMED_BODY"


class InvalidEvents(Refusal):
    """At least one event is invalid; none was applied. `invalids` is cut to a limit, `total` is not."""

    code = "INVALID_EVENTS"

    def __init__(self, invalids: list[InvalidEvent], total: int) -> None:
        super().__init__(f"{total} problem{'s' if total != 1 else ''} found; no event of the request was applied")
        self.invalids = invalids
        self.total = total


class InvalidSegment(Refusal):
    """A segment id or definition is invalid at `field`."""

    code = "INVALID_SEGMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class LimitReached(Refusal):
    """A configured bound on stored things would be passed; `limit_name` is the setting."""

    code = "LIMIT_REACHED"

    def __init__(self, field: str, message: str, limit_name: str, limit: int) -> None:
        super().__init__(message)
        self.field = field
        self.limit_name = limit_name
        self.limit = limit


class Forbidden(Refusal):
    """No key, an unknown key, or a key without the right; deliberately says no more."""

    code = "FORBIDDEN"

    def __init__(self, message: str = "Forbidden") -> None:
        super().__init__(message)


class PassthroughDisabled(Refusal):
    """External segments are switched off in the configuration."""

    code = "PASSTHROUGH_DISABLED"

    def __init__(self) -> None:
        super().__init__("External (passthrough) segments are off; set [passthrough] enabled = true to use them.")


class SegmentNotFound(Refusal):
    """No segment has this id."""

    code = "SEGMENT_NOT_FOUND"

    def __init__(self, segment_id: str) -> None:
        super().__init__("Segment not found.")
        self.segment_id = segment_id


class RevisionMismatch(Refusal):
    """If-Match named another revision than the present one (`actual` None: there is no such segment)."""

    code = "REVISION_MISMATCH"

    def __init__(self, expected: int, actual: int | None) -> None:
        present = "there is no such segment" if actual is None else f"the present revision is {actual}"
        super().__init__(f"If-Match asks for revision {expected}, but {present}.")
        self.expected = expected
        self.actual = actual


class TooLarge(Refusal):
    """A body is larger than the setting `limit_name` allows (bytes)."""

    code = "TOO_LARGE"

    def __init__(self, message: str, limit_name: str, limit: int) -> None:
        super().__init__(message)
        self.limit_name = limit_name
        self.limit = limit


class UnsupportedMediaType(Refusal):
    """Content-Type or Content-Encoding is not one that is read here."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class Unavailable(Refusal):
    """The service cannot take this now; the identical request may be sent again after `retry_after_seconds`."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Unavailable):
    """The key has asked for more than it may."""

    code = "RATE_LIMITED"


class TooManyWrongKeys(Unavailable):
    """The client's address has tried too many unknown keys."""

    code = "TOO_MANY_WRONG_KEYS"


class Overloaded(Unavailable):
    """A bounded queue is full."""

    code = "OVERLOADED"


class ShuttingDown(Unavailable):
    """The service finishes what it took and takes nothing more."""

    code = "SHUTTING_DOWN"


class StoreUnavailable(Unavailable):
    """The store cannot be written (disk or map full, I/O error)."""

    code = "STORE_UNAVAILABLE"
