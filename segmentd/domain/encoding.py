"""What every JSON body must be before anything else: UTF-8, throughout.

The JSON decoder checks only the text that it gives out, and counts places from the start of that text.
"""

from segmentd.domain.refusals import MalformedBody


def require_utf8(body: bytes) -> None:
    """Raises MalformedBody with the place of the first byte that belongs to no character."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        message = f"The body is not UTF-8: byte {error.start} (line {line}) belongs to no character."
        raise MalformedBody(message) from None
