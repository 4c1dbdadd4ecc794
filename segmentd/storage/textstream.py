"""Bytes from outside → lines of text, with a bound on everything: inflated if they are gzip, checked to be UTF-8.

Never holds more than one block and one line. Raises `UnreadableFile` with the line where that is known.
"""

import zlib
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Final

from segmentd.domain.wholelist import UnreadableFile

READ_BYTES: Final = 1 << 18
_INFLATED_BYTES_MAX: Final = 1 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZIP_MAGIC: Final = b"PK\x03\x04"
_GZIP_WINDOW_BITS: Final = 31  # zlib's way to say: 32 KiB window, gzip header and checksum (RFC 1952)
_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")

Read = Callable[[int], bytes]
"""Gives 1..n bytes, or none at the end."""


def blocks(read: Read, *, must_be_gzip: bool = False) -> Iterator[bytes]:
    """The content in blocks of at most 1 MiB, inflated if it begins as gzip does. Raises UnreadableFile."""
    first = read(READ_BYTES)
    while first and len(first) < len(_GZIP_MAGIC):
        more = read(READ_BYTES)
        if not more:
            break
        first += more
    if first.startswith(_GZIP_MAGIC):
        yield from _inflated(first, read)
        return
    if first.startswith(_ZIP_MAGIC):
        raise UnreadableFile("The file is a zip archive, such as a workbook; it must be text (CSV, NDJSON) or gzip.")
    if must_be_gzip and first:
        raise UnreadableFile("The file is sent as gzip, but is none.")
    while first:
        yield first
        first = read(READ_BYTES)


def _inflated(data: bytes, read: Read) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_WINDOW_BITS)
    while data or (data := read(READ_BYTES)):
        if member.eof:
            # Another member, or zeros that pad the last one.
            if not (data := data.lstrip(b"\0")):
                continue
            member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            block = member.decompress(data, _INFLATED_BYTES_MAX)
        except zlib.error as error:
            raise UnreadableFile(f"The file is no valid gzip: {error}.") from None
        data = member.unused_data if member.eof else member.unconsumed_tail
        if block:
            yield block
    if not member.eof:
        raise UnreadableFile("The file is no whole gzip: it ends too early.")


def text_blocks(content: Iterator[bytes], *, line_bytes_max: int) -> Iterator[tuple[int, str]]:
    """(number of its first line from 1, text of whole lines) until the content ends. Raises UnreadableFile."""
    line = 1
    rest = b""
    for block in content:
        if line == 1 and not rest and block.startswith(_UTF16_BOMS):
            raise UnreadableFile("The file is UTF-16; it must be UTF-8.", 1)
        cut = block.rfind(b"\n") + 1
        whole, rest = (rest + block[:cut], block[cut:]) if cut else (b"", rest + block)
        if whole:
            if line == 1:
                whole = whole.removeprefix(_BOM)
            yield line, _decoded(whole, line, line_bytes_max)
            line += whole.count(b"\n")
        if len(rest) > line_bytes_max:
            raise _too_long(line, line_bytes_max)
    if rest:
        if line == 1:
            rest = rest.removeprefix(_BOM)
        yield line, _decoded(rest, line, line_bytes_max)


def lines_of(text: str) -> StringIO:
    """Iterates the lines of a text block, line ends kept (the csv module needs them inside quotes)."""
    return StringIO(text, newline="\n")


def _decoded(whole: bytes, first_line: int, line_bytes_max: int) -> str:
    if len(whole) > line_bytes_max:
        lines = whole.split(b"\n")
        longest = max(map(len, lines))
        if longest > line_bytes_max:
            at = next(number for number, line in enumerate(lines) if len(line) == longest)
            raise _too_long(first_line + at, line_bytes_max)
    try:
        return whole.decode()
    except UnicodeDecodeError as error:
        line = first_line + whole.count(b"\n", 0, error.start)
        raise UnreadableFile(
            f"The file is not UTF-8: line {line} has bytes that belong to no character.", line
        ) from None


def _too_long(line: int, line_bytes_max: int) -> UnreadableFile:
    return UnreadableFile(f"Line {line} is longer than {line_bytes_max} bytes ([imports] line_bytes_max).", line)
