"""Cursors and pages, by the Relay cursor-connections rules.

A cursor names a segment, not a position, so it stays good while segments come and go, even its own. It is opaque:
url-safe base64 of a version and the segment id.

`first` and `last` together follow the algorithm of the Relay specification (first, then last of those). Both page flags
are exact whatever the direction, which the specification allows where it can be told efficiently.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Final, NamedTuple

from segmentd.graphql.errors import ReadError

_VERSION: Final = "s1:"
# The longest segment id is 128 characters; nothing longer was ever handed out.
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{5,176}")
_NAME: Final = re.compile(r"s1:([a-z0-9_]{1,128})")


class Page(NamedTuple):
    """The arguments that cut a page out of a list."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


def cursor_of(name: str) -> str:
    """The cursor of the segment with this id."""
    return urlsafe_b64encode(f"{_VERSION}{name}".encode()).rstrip(b"=").decode()


def name_of(cursor: str, argument: str) -> str:
    """The segment id in `cursor`. argument: for the message. Raises ReadError INVALID_CURSOR."""
    if _CURSOR.fullmatch(cursor):
        try:
            decoded = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        except (Base64Error, UnicodeDecodeError):
            decoded = ""
        found = _NAME.fullmatch(decoded)
        # One text per cursor: spare bits at the end of base64 must not make a second one.
        if found and cursor_of(found[1]) == cursor:
            return found[1]
    raise ReadError("INVALID_CURSOR", f"`{argument}` is not a cursor of this service.")


def bounds(page: Page, count: int, after: Callable[[str], int], before: Callable[[str], int]) -> tuple[int, int]:
    """Where the page begins and ends in a list of `count` items.

    after: segment id → index of the first item behind it. before: segment id → index of the first item not before it.
    Raises ReadError: INVALID_CURSOR, or INVALID_ARGUMENT for a negative number.
    """
    for argument, number in (("first", page.first), ("last", page.last)):
        if number is not None and number < 0:
            raise ReadError("INVALID_ARGUMENT", f"`{argument}` must not be negative.")
    start = 0 if page.after is None else after(name_of(page.after, "after"))
    end = count if page.before is None else before(name_of(page.before, "before"))
    end = max(start, end)
    if page.first is not None:
        end = min(end, start + page.first)
    if page.last is not None:
        start = max(start, end - page.last)
    return start, end
