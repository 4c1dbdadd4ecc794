"""The import scan: a child process that compares a whole list with the members of its audience.

Both lie on disk in the same order, so one walk along both tells who is listed and who is not. The index is read in one
transaction: a consistent snapshot, whatever is written meanwhile. With `output` the keys of members that are not listed
and were qualified before the import's time go to a file, one a line (`sweep_line`), on disk when the report is given.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import lmdb
import msgspec

from segmentd.storage.answering import answer
from segmentd.storage.errors import StorageError
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, Index
from segmentd.storage.stager import quiet_child

_BUFFER_BYTES = 1 << 18
_KIND_DIGITS = 2


class ScanArguments(msgspec.Struct, frozen=True):
    """What the child is told. kind_number: of all values in `staged`. v_floor: members below it are outdated."""

    index: str
    index_map_bytes: int
    audience: int
    staged: str
    kind_number: int
    v_floor: int
    output: str | None = None


class ScanReport(msgspec.Struct, frozen=True):
    """What the walk found."""

    members: int = 0
    """Members of the audience in all."""
    listed: int = 0
    """Those of them that are in the list."""
    outdated: int = 0
    """Those that are not, and were qualified before the import's time."""
    error: str | None = None


def sweep_line(key: bytes) -> bytes:
    """A key as a line of the file. The kind is written in hexadecimal: as a byte it could be a line feed."""
    return b"%02x%b\n" % (key[0], key[1:])


def swept_key(line: bytes) -> bytes:
    """The reverse of `sweep_line`."""
    return bytes((int(line[:_KIND_DIGITS], 16),)) + line[_KIND_DIGITS:-1]


def scan(arguments: ScanArguments) -> ScanReport:
    """Walk along both. Raises StorageError, OSError."""
    index = Index(Path(arguments.index), map_bytes=arguments.index_map_bytes, read_only=True)
    try:
        with index.reading() as txn, Path(arguments.staged).open("rb", _BUFFER_BYTES) as staged:
            members = _members(index, txn, arguments.audience)
            if arguments.output is None:
                return _walk(members, staged, arguments, None)
            with Path(arguments.output).open("wb", _BUFFER_BYTES) as out:
                report = _walk(members, staged, arguments, out)
                out.flush()
                os.fsync(out.fileno())
            return report
    finally:
        index.close()


def _members(index: Index, txn: lmdb.Transaction, audience: int) -> Iterator[tuple[bytes, int]]:
    """(identifier key, v) in key order."""
    prefix = AUDIENCE_KEY.pack(audience)
    cursor = txn.cursor(index.members_db)
    if cursor.set_range(prefix):
        for row, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
            if not row.startswith(prefix):
                return
            yield row[4:], V_VALUE.unpack(value)[0]


def _walk(
    members: Iterator[tuple[bytes, int]], staged: BinaryIO, arguments: ScanArguments, out: BinaryIO | None
) -> ScanReport:
    kind, v_floor = arguments.kind_number, arguments.v_floor
    found = listed = outdated = 0
    line = staged.readline()
    for key, v in members:
        found += 1
        if key[0] == kind:
            value = key[1:] + b"\n"
            while line and line < value:
                line = staged.readline()
            if line == value:
                listed += 1
                continue
        if v < v_floor:
            outdated += 1
            if out is not None:
                out.write(sweep_line(key))
    return ScanReport(members=found, listed=listed, outdated=outdated)


def main(argument: str) -> int:
    """Scan once and report on standard output."""
    quiet_child()
    try:
        report = scan(msgspec.json.decode(argument, type=ScanArguments))
    except (StorageError, OSError, lmdb.Error) as error:
        report = ScanReport(error=str(error))
    answer(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
