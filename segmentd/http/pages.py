"""Reading the query of a request: `first` and `after` of a page, and truths. Never reads the list itself."""

from __future__ import annotations

from typing import Final

from segmentd.domain.pagecursors import key_of
from segmentd.http.errors import InvalidRequest
from segmentd.http.exchange import Request

FIRST_DEFAULT: Final = 100
_DIGITS_MAX: Final = 9
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


def query_of(request: Request) -> dict[str, str]:
    """The fields of the query. Raises InvalidRequest."""
    try:
        return request.query_fields()
    except ValueError as error:
        raise InvalidRequest("query string", f"The query string cannot be read: {error}.") from None


def first_of(fields: dict[str, str], first_max: int) -> int:
    """How many items the page may have. Raises InvalidRequest."""
    text = fields.get("first")
    if text is None:
        return min(FIRST_DEFAULT, first_max)
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and 1 <= int(text) <= first_max:
        return int(text)
    raise InvalidRequest("first", f"The field first must be an integer from 1 to {first_max}; got {text[:20]!r}.")


def truth_of(fields: dict[str, str], name: str) -> bool:
    """Whether a field is true; false where it is missing. Raises InvalidRequest."""
    text = fields.get(name, "false")
    if text not in _TRUTHS:
        raise InvalidRequest(name, f"The field {name} must be true or false; got {text[:20]!r}.")
    return _TRUTHS[text]


def after_of(fields: dict[str, str], kind: bytes) -> bytes:
    """The key behind which the page begins, empty for the first page. Raises InvalidRequest."""
    text = fields.get("after")
    if text is None:
        return b""
    try:
        return key_of(kind, text)
    except ValueError as error:
        raise InvalidRequest("after", f"The field after {error}.") from None
