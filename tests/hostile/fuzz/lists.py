"""Whole lists: the stager says the same however the bytes arrive, and nothing but a named reason ends it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from segmentd.domain.identifiers import Confidence, IdentifierKind
from segmentd.domain.importjob import Form
from segmentd.storage.stager import StagerArguments, StagingReport, stage

KINDS = [
    IdentifierKind("fs_user_id", Confidence.HIGH, 0),
    IdentifierKind("email", Confidence.HIGH, 1, lower_case=True),
    IdentifierKind("vuid", Confidence.LOW, 2),
]
FORMS: tuple[Form, ...] = ("auto", "csv", "ndjson")
LINE_BYTES_MAX = 256
ROWS_MAX = 50

_folder = tempfile.TemporaryDirectory(prefix="fuzz-lists-")


def whole_list(data: bytes) -> None:
    """data: a byte for the form and the size of the pieces, then the file."""
    if not data:
        return
    form, size = FORMS[data[0] % 3], 1 + data[0] // 3
    whole, pieces = _staged(data[1:], form, 1 << 18), _staged(data[1:], form, size)
    # Where a file has several faults, which one is told first depends on how much of it was seen at once.
    assert whole == pieces or (whole[0].error and pieces[0].error), (whole, pieces)


def _staged(content: bytes, form: Form, size: int) -> tuple[StagingReport, bytes]:
    """The last report, and the sorted file if there is one."""
    path = Path(_folder.name) / "sorted"
    path.unlink(missing_ok=True)
    arguments = StagerArguments(
        path=str(path),
        audience_id="a",
        kinds=KINDS,
        value_bytes_max=64,
        ts_ms_max=1_750_000_000_000,
        form=form,
        gzip=False,
        identifier=None,
        line_bytes_max=LINE_BYTES_MAX,
        rows_max=ROWS_MAX,
        rejects_listed_max=5,
    )
    reports: list[StagingReport] = []
    stage(arguments, _reader(content, size), reports.append)
    last = reports[-1]
    assert last.done or last.error, last
    assert last.rejected <= last.rows
    return last, path.read_bytes() if last.done else b""


def _reader(content: bytes, size: int) -> Callable[[int], bytes]:
    position = 0

    def read(most: int) -> bytes:
        nonlocal position
        piece = content[position : position + min(size, most)]
        position += len(piece)
        return piece

    return read
