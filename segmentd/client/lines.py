"""A file of events, one a line, as lines to send: plain or gzip, blank lines left out, no line larger than a bound.

Owns the numbering of a file's lines, from 1, blank ones counted. Never decodes an event.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from segmentd.client.report import Line

_GZIP: Final = b"\x1f\x8b"
# Of a line that is too long, so many bytes are kept: enough to recognize it.
_SHOWN_BYTES: Final = 200


class UnreadableFile(Exception):
    """The file cannot be read on; the lines before are as they are."""


class ReadsLines(Protocol):
    """What is needed of a binary file."""

    def readline(self, size: int, /) -> bytes:
        """The bytes up to the next newline, at most `size`."""


def inflated(file: io.BufferedReader) -> ReadsLines:
    """The file, or what is in it if its first bytes say that it is gzip."""
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file


def read_lines(file: ReadsLines, *, from_line: int = 1, line_bytes_max: int) -> Iterator[Line]:
    """The lines from `from_line` on. One that is longer than `line_bytes_max` comes without its text, with a flaw.

    Raises UnreadableFile.
    """
    number = 0
    try:
        while text := file.readline(line_bytes_max + 1):
            number += 1
            flaw = ""
            if len(text) > line_bytes_max and not text.endswith(b"\n"):
                flaw = f"It is longer than {line_bytes_max} bytes."
                _skip_line(file, line_bytes_max)
            if number < from_line or not (text := text.strip(b" \t\r\n")):
                continue
            yield Line(number, text[:_SHOWN_BYTES] if flaw else text, flaw)
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableFile(f"it cannot be read after line {number}: {reason}") from None


def _skip_line(file: ReadsLines, chunk_bytes: int) -> None:
    while (rest := file.readline(chunk_bytes)) and not rest.endswith(b"\n"):
        pass
