"""The stager: a child process that reads one whole list from standard input and leaves it sorted on disk.

A process of its own, because reading millions of rows is steady work for a whole core. It gets its arguments as JSON,
the file as raw bytes on standard input, and answers with JSON lines (`StagingReport`) on standard output: progress now
and then, and at last one with `done` or with `error`. It changes nothing but the files beside `path`; killing it at any
moment is safe.
"""

import csv
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from segmentd.domain.identifiers import IdentifierKind, IdentifierSchema
from segmentd.domain.importjob import Form, Reject
from segmentd.domain.wholelist import CsvForm, FileRules, JsonForm, Row, UnreadableFile
from segmentd.storage.answering import answer
from segmentd.storage.csvrecords import EMPTY, Place, csv_header, csv_lines, csv_records
from segmentd.storage.failpoints import hit
from segmentd.storage.sortedfile import DistinctValues
from segmentd.storage.textstream import READ_BYTES, blocks, lines_of, text_blocks

_REPORT_ROWS: Final = 50_000
CHILD_NICENESS: Final = 5
"""Queries come first: the event loop wins against its children."""


class StagerArguments(msgspec.Struct, frozen=True):
    """What the child is told. ts_ms_max: the latest time that is not in the future."""

    path: str
    audience_id: str
    kinds: list[IdentifierKind]
    value_bytes_max: int
    ts_ms_max: int
    form: Form
    gzip: bool
    identifier: str | None
    line_bytes_max: int
    rows_max: int
    rejects_listed_max: int


class StagingReport(msgspec.Struct):
    """One line of the child."""

    rows: int = 0
    """Rows read, rejected ones included."""
    rejected: int = 0
    rejects: list[Reject] = []
    distinct: int = 0
    latest_ts_ms: int | None = None
    identifier: str | None = None
    kind_number: int = 0
    done: bool = False
    error: str | None = None
    """What is wrong with the file, in the line `error_line`."""
    error_line: int | None = None
    disk_error: str | None = None
    """Why it could not be staged although nothing is known to be wrong with it."""


class _Staging:
    """What was read so far."""

    def __init__(self, arguments: StagerArguments, report: Callable[[StagingReport], None]) -> None:
        schema = IdentifierSchema(arguments.kinds, arguments.value_bytes_max)
        self.rules = FileRules(schema, arguments.audience_id, arguments.ts_ms_max, arguments.identifier)
        self.arguments = arguments
        self.report = StagingReport()
        self.values = DistinctValues(Path(arguments.path))
        self._tell = report

    def rows(self, rows: Iterable[tuple[int, Any]], read: Callable[[Any, int], Row]) -> None:
        """Take all rows. rows: (line, content)."""
        report, add = self.report, self.values.add
        latest, counted = -1, 0
        for line, content in rows:
            counted += 1
            try:
                value, ts_ms = read(content, line)
            except ValueError as error:
                self.reject(line, str(error))
            else:
                add(value)
                if ts_ms is not None and ts_ms > latest:
                    latest = ts_ms
            if not counted % _REPORT_ROWS:
                report.rows, report.latest_ts_ms = counted, latest if latest >= 0 else None
                self._checkpoint()
        report.rows, report.latest_ts_ms = counted, latest if latest >= 0 else None
        self._checkpoint()

    def reject(self, line: int, reason: str) -> None:
        """Note a row that does not count."""
        self.report.rejected += 1
        if len(self.report.rejects) < self.arguments.rejects_listed_max:
            self.report.rejects.append(Reject(line, reason))

    def finish(self, kind: IdentifierKind | None) -> StagingReport:
        """Leave the sorted file. Raises UnreadableFile."""
        report = self.report
        if kind is None or not report.rows:
            raise UnreadableFile(EMPTY.replace("is empty", "has no rows"))
        report.distinct = self.values.finish()
        report.identifier, report.kind_number, report.done = kind.name, kind.number, True
        return report

    def _checkpoint(self) -> None:
        self.values.turn()
        hit("import_staging", parent=True)
        if self.report.rows > self.arguments.rows_max:
            raise UnreadableFile(f"The file has more than {self.arguments.rows_max} rows ([imports] rows_max).")
        self._tell(self.report)


def stage(arguments: StagerArguments, read: Callable[[int], bytes], tell: Callable[[StagingReport], None]) -> None:
    """Stage what `read` gives, and tell how it goes; the last report has `done`, `error` or `disk_error`."""
    staging = _Staging(arguments, tell)
    try:
        content = blocks(read, must_be_gzip=arguments.gzip)
        texts = text_blocks(content, line_bytes_max=arguments.line_bytes_max)
        begun = [next(texts, (1, ""))] if arguments.form == "csv" else _begun(texts, arguments.line_bytes_max)
        texts = itertools.chain(begun, texts)
        kind = _json(staging, texts) if _is_json(arguments.form, begun[-1][1]) else _csv(staging, texts)
        tell(staging.finish(kind))
    except UnreadableFile as error:
        tell(StagingReport(error=error.message, error_line=error.line))
    except OSError as error:
        tell(StagingReport(disk_error=error.strerror or str(error)))


def _begun(texts: Iterator[tuple[int, str]], bytes_max: int) -> list[tuple[int, str]]:
    """The first blocks, up to the first one that has more than white space: it tells the form, however the bytes came.

    Raises UnreadableFile: there is too much white space to hold it.
    """
    blocks_read, blank = [], 0
    for line, text in texts:
        blocks_read.append((line, text))
        blank += len(text) - len(text.lstrip())
        if blank > bytes_max:
            raise UnreadableFile(f"The file begins with more than {bytes_max} characters of white space.", 1)
        if not text.isspace():
            break
    return blocks_read or [(1, "")]


def _is_json(form: Form, text: str) -> bool:
    """Raises UnreadableFile."""
    if form != "csv" and text.lstrip()[:1] == "[":
        raise UnreadableFile("The file is one JSON array; write one object a line, without brackets and commas.", 1)
    return form == "ndjson" or (form == "auto" and text.lstrip()[:1] == "{")


def _csv(staging: _Staging, texts: Iterator[tuple[int, str]]) -> IdentifierKind | None:
    bytes_max = staging.arguments.line_bytes_max
    csv.field_size_limit(bytes_max)
    place = Place()
    reader = csv.reader(itertools.chain.from_iterable(csv_lines(texts, place, bytes_max)), strict=True)
    header = csv_header(reader, place)
    form = CsvForm(header, staging.rules)
    read = form.reader()

    def row(fields: list[str] | csv.Error, line: int) -> Row:
        if isinstance(fields, csv.Error):
            raise ValueError(f"is no CSV: {fields}")  # noqa: TRY004  # the row is wrong, not a type
        return read(fields, line)

    staging.rows(csv_records(reader, place), row)
    return form.kind


def _json(staging: _Staging, texts: Iterator[tuple[int, str]]) -> IdentifierKind | None:
    form = JsonForm(staging.rules)
    decode = msgspec.json.Decoder().decode

    def objects() -> Iterator[tuple[int, str]]:
        for first, text in texts:
            for line, content in enumerate(lines_of(text), start=first):
                if not content.isspace():
                    yield line, content

    def row(content: str, line: int) -> Row:
        try:
            found = decode(content)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("is no valid JSON") from None
        return form.row(found, line)

    staging.rows(objects(), row)
    if form.kind is None and staging.report.rows:
        raise UnreadableFile(f"No row has an identifier; the first one {staging.report.rejects[0].reason}.", 1)
    return form.kind


def quiet_child() -> None:
    """What every child of the server does first: leave signals to the parent, and the processor to the event loop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(CHILD_NICENESS)


def main(argument: str) -> int:
    """Stage standard input."""
    quiet_child()
    stage(
        msgspec.json.decode(argument, type=StagerArguments),
        lambda size: os.read(sys.stdin.fileno(), min(size, READ_BYTES)),
        answer,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
