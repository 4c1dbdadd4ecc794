"""Cursors of pages: opaque texts that name the last item of a page, so they stay good while items come and go.

A cursor is url-safe base64 of a letter that says what it names, a colon, and the item's key.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

MEMBER: Final = b"m:"
"""Names an identifier key."""
AUDIENCE: Final = b"a:"
"""Names an audience id."""
# A key has at most 501 bytes.
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{4,700}")


def cursor_of(kind: bytes, key: bytes) -> str:
    """The cursor of the item with this key."""
    return urlsafe_b64encode(kind + key).rstrip(b"=").decode()


def key_of(kind: bytes, cursor: str) -> bytes:
    """The key that a cursor names. Raises ValueError for a text that `cursor_of` never made for this kind."""
    if _CURSOR.fullmatch(cursor):
        try:
            decoded = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except Base64Error:
            decoded = b""
        key = decoded.removeprefix(kind)
        # One text a cursor: spare bits at the end of base64 must not make a second one.
        if key and decoded.startswith(kind) and cursor_of(kind, key) == cursor:
            return key
    raise ValueError("is not a cursor of this list")
