"""Staging: bytes of a file in, sorted distinct values out, or one clear reason."""

import csv
import gzip
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.domain.identifiers import Confidence, IdentifierKind
from segmentd.domain.importjob import Form
from segmentd.storage import sortedfile
from segmentd.storage.stager import StagerArguments, StagingReport, stage

KINDS = [
    IdentifierKind("fs_user_id", Confidence.HIGH, 0),
    IdentifierKind("email", Confidence.HIGH, 1, lower_case=True),
    IdentifierKind("vuid", Confidence.LOW, 2),
]
HEADER = "type,action,audience_id,ts,fs_user_id\n"
ROW = "passthrough,qualify,vip,5,u-1\n"


def staged(
    path: Path,
    content: bytes,
    form: Form = "csv",
    *,
    must_be_gzip: bool = False,
    piece: int = 1 << 18,
    rows: int = 10**6,
) -> StagingReport:
    """Stage `content`, read in pieces; the last report."""
    arguments = StagerArguments(
        path=str(path / "staged"),
        audience_id="vip",
        kinds=KINDS,
        value_bytes_max=64,
        ts_ms_max=10_000_000,
        form=form,
        gzip=must_be_gzip,
        identifier=None,
        line_bytes_max=4_096,
        rows_max=rows,
        rejects_listed_max=3,
    )
    reports: list[StagingReport] = []
    stage(arguments, io.BytesIO(content).read if piece > 1 << 17 else _pieces(content, piece), reports.append)
    return reports[-1]


def _pieces(content: bytes, size: int) -> "Reader":
    return Reader(content[start : start + size] for start in range(0, len(content), size))


class Reader:
    """Gives what it has in pieces, as a pipe may."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __call__(self, _size: int) -> bytes:
        return next(self._pieces, b"")


def values(path: Path) -> list[bytes]:
    return (path / "staged").read_bytes().split(b"\n")[:-1]


VALUES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))


@given(texts=VALUES, zipped=st.booleans(), piece=st.integers(1, 50), form=st.sampled_from(["csv", "ndjson", "auto"]))
@settings(deadline=None)
def test_every_form_gives_the_distinct_values_sorted(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], zipped: bool, piece: int, form: Form
) -> None:
    path = tmp_path_factory.mktemp("staged")
    out = io.StringIO()
    if form == "ndjson":
        import msgspec

        out.write("".join(msgspec.json.encode({"fs_user_id": text}).decode() + "\n" for text in texts))
    else:
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["fs_user_id"], *([text] for text in texts)])
    content = out.getvalue().encode()
    report = staged(path, gzip.compress(content) if zipped else content, form, piece=piece)
    if not texts:
        assert report.error is not None
        return
    assert report.error is None
    assert (report.rows, report.rejected) == (len(texts), 0)
    assert values(path) == sorted({text.encode() for text in texts})
    assert report.distinct == len(set(texts))


def test_more_values_than_fit_in_a_run_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sortedfile, "RUN_VALUES", 10)
    monkeypatch.setattr(sortedfile, "RUNS_MAX", 4)
    distinct = sortedfile.DistinctValues(tmp_path / "staged")
    for number in range(1_000):
        distinct.add(b"%d" % (number * 7919 % 337))
        distinct.turn()
    assert distinct.finish() == 337
    assert values(tmp_path) == sorted(b"%d" % number for number in range(337))
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbffs_user_id\nu-1\n",
        b"fs_user_id\r\nu-1\r\n",
        b"fs_user_id\nu-1",
        b"\n\nfs_user_id\n\nu-1\n\n",
        b'"fs_user_id"\n"u-1"\n',
        b"fs_user_id\nu-1\nu-1\nu-1\n",
        gzip.compress(b"fs_user_id\n", mtime=0) + gzip.compress(b"u-1\n", mtime=0),
        gzip.compress(b"fs_user_id\nu-1\n", mtime=0) + b"\0" * 512,
    ],
)
def test_what_spreadsheets_and_tools_write_is_accepted(tmp_path: Path, content: bytes) -> None:
    report = staged(tmp_path, content)
    assert (report.error, report.rejected) == (None, 0)
    assert values(tmp_path) == [b"u-1"]


def test_quotes_and_commas_in_values_are_kept(tmp_path: Path) -> None:
    report = staged(tmp_path, b'fs_user_id\n"a, ""b"""\nc"d\n')
    assert report.rejected == 0
    assert values(tmp_path) == [b'a, "b"', b'c"d']


def test_a_line_feed_inside_quotes_is_no_other_value(tmp_path: Path) -> None:
    report = staged(tmp_path, b'fs_user_id\n"a\nb"\nc\n')
    assert [reject.line for reject in report.rejects] == [3]
    assert values(tmp_path) == [b"c"]


@pytest.mark.parametrize(
    ("content", "named", "line"),
    [
        (b"", "empty", None),
        (b"\n\n", "empty", None),
        (b"fs_user_id\n", "no rows", None),
        (HEADER.encode(), "no rows", None),
        (b"u-1\nu-2\n", "header missing", 1),
        (b"fs_user_id,colour\nu,red\n", "unknown columns, at 2", 1),
        (b"fs_user_id,email\nu,a@b.example\n", "several identifiers", 1),
        (b"vuid\nv\n", "low-confidence", 1),
        (f"{HEADER}{ROW}passthrough,qualify,others,5,u\n".encode(), "another audience", 3),
        (f"{HEADER}{ROW}passthrough,disqualify,vip,5,u\n".encode(), "disqualifies", 3),
        (gzip.compress(HEADER.encode() + ROW.encode() * 500, mtime=0)[:-9], "ends too early", None),
        (gzip.compress(HEADER.encode(), mtime=0)[:20] + b"\xff" * 40, "gzip", None),
        (b"fs_user_id\nu-1\n\xff\xfeu\n", "not UTF-8", 3),
        ("fs_user_id\nu-1\n".encode("utf-16"), "UTF-16", 1),
        (b"fs_user_id\nu-1\n" + b"x" * 5_000 + b"\nu-2\n", "longer than 4096 bytes", 3),
        (b'fs_user_id\nu-1\n"u-2\nu-3\n', "not closed", 3),
        (b'fs_user_id\nu-1\n"u-2\n' + b"u-3\n" * 5_000, "not closed", 3),
        (b'"fs_user_id\nu-1\n', "not closed", 1),
        (b"PK\x03\x04 and so on", "zip archive", None),
        (b"FS_user_ID,ts\nu,5\n", "column 1 must be written `fs_user_id`", 1),
        (b"type;action;audience_id;ts;fs_user_id\n", "separated by commas, here it seems to be semicolons", 1),
        (b"ts\tfs_user_id\n", "seems to be tabs", 1),
        (b"fs_user_id\ru-1\ru-2\r", "end with LF or CR LF", 1),
    ],
)
def test_a_bad_file_is_refused_with_reason_and_line(
    tmp_path: Path, content: bytes, named: str, line: int | None
) -> None:
    report = staged(tmp_path, content)
    assert report.error is not None
    assert named in report.error
    assert report.error_line == line
    assert not report.done


@pytest.mark.parametrize("form", ["auto", "ndjson"])
def test_an_array_is_no_list_of_objects(tmp_path: Path, form: Form) -> None:
    report = staged(tmp_path, b'[{"fs_user_id": "u"}]', form)
    assert (report.error_line, "one object a line" in (report.error or "")) == (1, True)


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    asked = 0

    def read(size: int) -> bytes:
        nonlocal asked
        asked += 1
        return b"fs_user_id\n" if asked == 1 else b"x" * size

    reports: list[StagingReport] = []
    arguments = StagerArguments(str(tmp_path / "s"), "vip", KINDS, 64, 10**9, "csv", False, None, 4_096, 10**6, 3)
    stage(arguments, read, reports.append)
    assert "longer than" in (reports[-1].error or "")
    assert asked < 5


def test_a_record_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    asked = 0

    def read(size: int) -> bytes:
        nonlocal asked
        asked += 1
        return b'fs_user_id\nu-1\n"u' if asked == 1 else b'\n","' * (size // 4)

    reports: list[StagingReport] = []
    arguments = StagerArguments(str(tmp_path / "s"), "vip", KINDS, 64, 10**9, "csv", False, None, 4_096, 10**6, 3)
    stage(arguments, read, reports.append)
    assert (reports[-1].error_line, "not closed" in (reports[-1].error or "")) == (3, True)
    assert asked < 6


@pytest.mark.parametrize("piece", [1, 1_000, 4_096, 1 << 18])
@pytest.mark.parametrize("bytes_more", [0, 1])
def test_a_record_of_many_lines_has_the_bound_of_a_line_wherever_blocks_end(
    tmp_path: Path, piece: int, bytes_more: int
) -> None:
    row = '"' + "\u00e4\n" * 1_364 + "x" * (2 + bytes_more) + '"'
    assert len(row.encode()) == 4_096 + bytes_more
    report = staged(tmp_path, f"fs_user_id\nu-1\n{row}\n{row}\nu-2\n".encode(), piece=piece)
    if bytes_more:
        assert (report.done, report.error_line) == (False, 3)
        assert "longer than 4096 bytes" in (report.error or "")
    else:
        assert (report.rows, report.rejected, report.distinct) == (4, 2, 2)


def test_many_small_blocks_of_blank_lines_and_rows_are_no_record_without_end(tmp_path: Path) -> None:
    report = staged(tmp_path, b"\n" * 9_000 + b"fs_user_id\n" + b"\n" * 9_000 + b"u-1\n" * 3_000, piece=3_000)
    assert (report.error, report.rows, report.distinct) == (None, 3_000, 1)


def test_a_file_sent_as_gzip_must_be_gzip(tmp_path: Path) -> None:
    assert "is none" in (staged(tmp_path, b"fs_user_id\nu\n", must_be_gzip=True).error or "")


def test_more_rows_than_allowed_are_refused(tmp_path: Path) -> None:
    assert "more than 2 rows" in (staged(tmp_path, b"fs_user_id\na\nb\nc\n", rows=2).error or "")


def test_bad_rows_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    bad = "passthrough,qualify,vip,nonsense,u\n"
    report = staged(tmp_path, f"{HEADER}{bad}{ROW}{bad * 4}".encode())
    assert (report.rows, report.rejected, len(report.rejects)) == (6, 5, 3)
    assert report.rejects[0].line == 2
    assert report.latest_ts_ms == 5_000


def test_the_largest_ts_of_the_file_is_told(tmp_path: Path) -> None:
    rows = "".join(f"passthrough,qualify,vip,{ts},u{ts}\n" for ts in (5, 9.25, 3))
    assert staged(tmp_path, f"{HEADER}{rows}".encode()).latest_ts_ms == 9_250
    assert staged(tmp_path, b"fs_user_id\nu\n").latest_ts_ms is None


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
def test_white_space_in_front_does_not_decide_the_form_however_the_bytes_come(tmp_path: Path, piece: int) -> None:
    for content in (b'\n \n{"fs_user_id": "u-1"}\n', b"\n\r\nfs_user_id\nu-1\n"):
        report = staged(tmp_path, content, "auto", piece=piece)
        assert (report.error, report.distinct) == (None, 1)
    assert "white space" in (staged(tmp_path, b"\n" * 5_000 + b"fs_user_id\nu-1\n", "auto", piece=piece).error or "")


def test_a_child_whose_server_has_died_ends_without_a_word(tmp_path: Path) -> None:
    arguments = StagerArguments(str(tmp_path / "s"), "vip", KINDS, 64, 10**9, "csv", False, None, 4_096, 10**6, 3)
    command = [sys.executable, "-m", "segmentd.storage.stager", msgspec.json.encode(arguments).decode()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as stager:
        assert stager.stdin is not None
        assert stager.stdout is not None
        assert stager.stderr is not None
        stager.stdout.close()
        stager.stdin.write(b"fs_user_id\nada\n")
        stager.stdin.close()
        assert stager.stderr.read() == b""
        assert stager.wait() == 1
