"""What can come of a request: an answer or none, and what an answer says of the reason.

Owns the reading of answers, of whatever shape. Never sends and never decides what to do about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0


@dataclass(frozen=True)
class Lost:
    """No answer. reached: the server may have read the request."""

    reason: str
    reached: bool


def retry_after_seconds(value: str | None, now_seconds: float) -> float:
    """What a Retry-After says, in seconds from now; 0 if it is missing or unreadable.

    now_seconds: since the epoch; RFC 9110 also allows a date.
    """
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_seconds)
    except (ValueError, OverflowError):
        return 0.0


def _object(answer: Answer) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def detail_of(answer: Answer) -> dict[str, Any]:
    """What an answer of the events API says in `detail`; empty if there is none."""
    detail = _object(answer).get("detail")
    return detail if isinstance(detail, dict) else {}


def message_of(answer: Answer) -> str:
    """The reason that an answer gives, whatever its shape."""
    reason = detail_of(answer).get("message") or _object(answer).get("message")
    return str(reason) if reason else "The server gives no reason."
