"""Blocks of CSV text → records with their lines. Never holds more than one block and one record.

How long a record may be does not depend on where blocks end: all of its bytes count, also quotes and inner line ends.
"""

import csv
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from segmentd.domain.wholelist import UnreadableFile
from segmentd.storage.textstream import lines_of

EMPTY: Final = "The file is empty. An empty list never empties an audience, not even with force."


class Place:
    """Where a CSV reader is. line: the last one of the latest whole record."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line = 0


def csv_lines(texts: Iterator[tuple[int, str]], place: Place, bytes_max: int) -> Iterator[Iterable[str]]:
    """The lines of each block. Raises UnreadableFile at a record that is too long, which would be held whole."""
    given, held = 0, 0

    def measured(text: str) -> Iterator[str]:
        nonlocal given, held
        for line in lines_of(text):
            # The reader has taken all that was given, so a record is whole or goes on here.
            held = (held if place.line < given else 0) + len(line.encode())
            if held - line.endswith("\n") > bytes_max:
                raise _record_too_long(place, bytes_max)
            given += 1
            yield line

    for _, text in texts:
        # Only a quoted field has more than one line, and a line alone was measured before.
        if '"' in text or place.line < given:
            yield measured(text)
        else:
            yield lines_of(text)
            given += text.count("\n") + (not text.endswith("\n"))


def csv_header(reader: Any, place: Place) -> list[str]:
    """The first record that is not empty. Raises UnreadableFile."""
    try:
        for fields in reader:
            place.line = reader.line_num
            if fields:
                return cast("list[str]", fields)
    except csv.Error as error:
        if _is_quote(error):
            raise _not_closed(place) from None
        if "new-line" in str(error):
            raise UnreadableFile("Lines must end with LF or CR LF; this one has a CR in it.", place.line + 1) from None
        raise UnreadableFile(f"The header is no CSV: {error}.", place.line + 1) from None
    raise UnreadableFile(EMPTY)


def csv_records(reader: Any, place: Place) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """(line, fields) of each record; one that is no CSV is given as its error. Raises UnreadableFile."""
    while True:
        try:
            for fields in reader:
                place.line = reader.line_num
                if fields:
                    yield place.line, fields
        except csv.Error as error:
            if _is_quote(error):
                raise _not_closed(place) from None
            place.line = reader.line_num
            yield place.line, error
        else:
            return


def _is_quote(error: csv.Error) -> bool:
    # A quote that nothing closes swallows all that follows.
    return "end of data" in str(error) or "field limit" in str(error)


def _not_closed(place: Place) -> UnreadableFile:
    line = place.line + 1
    return UnreadableFile(f"Line {line} has a quote that is not closed: no row ends from there on.", line)


def _record_too_long(place: Place, bytes_max: int) -> UnreadableFile:
    line = place.line + 1
    return UnreadableFile(
        f"The row at line {line} is longer than {bytes_max} bytes ([imports] line_bytes_max); has it a quote that is"
        " not closed?",
        line,
    )
