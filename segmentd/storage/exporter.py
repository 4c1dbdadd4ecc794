"""The exporter: a child process that writes all members of one audience to its standard output.

Everything comes from one read transaction, so an export is one consistent snapshot however long it takes, and writes go
on meanwhile. Protocol: first one JSON line (`ExportHeader`), then, unless the header says otherwise, the bytes of the
file and nothing else. Status 0 means that the file is whole.

Forms, both of which can be taken in again: CSV as ODP imports it (`type,action,audience_id,ts,<identifier>`), which has
room for one identifier name a file; NDJSON with one event a line, which `POST /v3/events` takes as well. A value is
never changed: not prefixed against spreadsheets that see formulas, because then it would be another identifier.
"""

import csv
import io
import json
import signal
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import lmdb
import msgspec

from segmentd.domain.members import Member
from segmentd.domain.membership import ts_ms_of
from segmentd.storage.errors import StorageError
from segmentd.storage.failpoints import hit
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.members import kinds_of, members_of

ROWS_A_WRITE = 2_000
GZIP_WBITS = 31

Form = Literal["csv", "ndjson"]


class ExporterArguments(msgspec.Struct, frozen=True):
    """What the child is told, as JSON in its only argument."""

    path: str
    journal_map_bytes: int
    index_map_bytes: int
    audience: int | None
    """Its number; None for one that nobody has heard of, which has no members."""
    audience_id: str
    form: Form
    gzip: bool
    kinds: dict[str, int]
    """identifier name → kind number, high-confidence ones."""
    identifier: str | None
    """The only name to export; None: all of them."""


class ExportHeader(msgspec.Struct, frozen=True):
    """The first line. With `identifiers` or an error there is no file."""

    identifiers: list[str] = []
    """The names that are there, where a CSV was asked for without saying which."""
    error: str | None = None


def main(argument: str) -> int:
    """Write the export. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a parent that stops reading ends the child
    arguments = msgspec.json.decode(argument, type=ExporterArguments)
    try:
        index = _open(arguments)
        with index.reading() as txn:
            return _export(index, txn, arguments, sys.stdout.buffer)
    except StorageError as error:
        _head(sys.stdout.buffer, ExportHeader(error=str(error)))
        return 1


def _open(arguments: ExporterArguments) -> Index:
    folder = DataFolder(
        Path(arguments.path),
        journal_map_bytes=arguments.journal_map_bytes,
        index_map_bytes=arguments.index_map_bytes,
        create=False,
        lock=False,
    )
    return folder.open_index(read_only=True)


def _export(index: Index, txn: lmdb.Transaction, arguments: ExporterArguments, out: BinaryIO) -> int:
    names = {number: name for name, number in arguments.kinds.items()}
    audience = arguments.audience
    present = [] if audience is None else [names[kind] for kind in kinds_of(index, txn, audience) if kind in names]
    asked = arguments.identifier
    if asked is None and arguments.form == "csv":
        if len(present) > 1:
            _head(out, ExportHeader(identifiers=present))
            return 0
        asked = present[0] if present else next(iter(arguments.kinds))
    _head(out, ExportHeader())
    kind = None if asked is None else arguments.kinds[asked]
    members = iter(()) if audience is None else members_of(index, txn, audience, kind=kind)
    known = ((key, v) for key, v in members if key[0] in names)
    audience_id = arguments.audience_id
    is_csv = arguments.form == "csv"
    texts = csv_texts(known, audience_id, str(asked)) if is_csv else ndjson_texts(known, audience_id, names)
    _write(texts, out, compress=arguments.gzip)
    return 0


def _head(out: BinaryIO, header: ExportHeader) -> None:
    out.write(msgspec.json.encode(header) + b"\n")
    out.flush()


def ts_text(v: int) -> str:
    """`ts` as an event has it: seconds, with three decimals where there are any."""
    seconds, ms = divmod(ts_ms_of(v), 1000)
    return f"{seconds}.{ms:03d}" if ms else str(seconds)


def csv_texts(members: Iterable[Member], audience_id: str, identifier: str, *, with_head: bool = True) -> Iterator[str]:
    """Pieces of a CSV file. identifier: of all members. with_head: whether the first line names the columns."""
    buffer = io.StringIO()
    write = csv.writer(buffer, lineterminator="\n").writerow
    if with_head:
        write(("type", "action", "audience_id", "ts", identifier))
    source = iter(members)
    while True:
        for key, v in islice(source, ROWS_A_WRITE):
            write(("passthrough", "qualify", audience_id, ts_text(v), key[1:].decode()))
        if not buffer.tell():
            return
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def ndjson_texts(members: Iterable[Member], audience_id: str, names: Mapping[int, str]) -> Iterator[str]:
    """Pieces of an NDJSON file. names: identifier name by kind number."""
    source = iter(members)
    audience = json.dumps(audience_id)
    before = {kind: f'{{"type":"passthrough","action":"qualify","identifiers":{{"{names[kind]}":' for kind in names}
    while rows := [
        f'{before[key[0]]}{json.dumps(key[1:].decode())}}},"data":{{"audience_id":{audience},"ts":{ts_text(v)}}}}}\n'
        for key, v in islice(source, ROWS_A_WRITE)
    ]:
        yield "".join(rows)


def _write(texts: Iterable[str], out: BinaryIO, *, compress: bool) -> None:
    if not compress:
        for text in texts:
            out.write(text.encode())
            hit("exporting")
        out.flush()
        return
    compressor = zlib.compressobj(wbits=GZIP_WBITS)
    for text in texts:
        out.write(compressor.compress(text.encode()))
    out.write(compressor.flush())
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
