"""Files of events: plain and gzip, blank lines, lines without an end, torn files."""

import gzip
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.client.lines import UnreadableFile, inflated, read_lines
from segmentd.client.report import Line


def lines_in(content: bytes, *, from_line: int = 1, line_bytes_max: int = 1_000) -> list[Line]:
    file = inflated(io.BufferedReader(io.BytesIO(content)))
    return list(read_lines(file, from_line=from_line, line_bytes_max=line_bytes_max))


@given(
    st.lists(st.sampled_from([b"{}", b"  {} ", b"", b" \t", b"\r", b'{"a":1}\r'])),
    st.booleans(),
    st.booleans(),
    st.integers(1, 8),
)
def test_lines_are_numbered_as_an_editor_does_and_blank_ones_left_out(
    texts: list[bytes], ended: bool, compressed: bool, from_line: int
) -> None:
    content = b"\n".join(texts) + (b"\n" if ended else b"")
    expected = [
        Line(number, text.strip()) for number, text in enumerate(texts, 1) if text.strip() and number >= from_line
    ]
    assert lines_in(gzip.compress(content) if compressed else content, from_line=from_line) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\nlast"])
@pytest.mark.parametrize("bytes_more", [1, 2, 10, 11, 25])
def test_a_line_that_is_too_long_has_a_flaw_and_the_next_ones_keep_their_numbers(bytes_more: int, end: bytes) -> None:
    found = lines_in(b"one\n" + b"x" * (10 + bytes_more) + end, line_bytes_max=10)
    assert [line.number for line in found] == [1, 2, 3][: len(found)]
    assert found[1].flaw == "It is longer than 10 bytes."
    assert len(found) == (3 if end == b"\nlast" else 2)


def test_a_line_of_just_the_longest_length_is_none_that_is_too_long() -> None:
    assert [line.flaw for line in lines_in(b"x" * 10 + b"\n" + b"y" * 10, line_bytes_max=10)] == ["", ""]


@pytest.mark.parametrize("cut", [1, 4, 8, 30])
def test_a_torn_gzip_gives_what_is_whole_and_says_where_it_ends(cut: int) -> None:
    content = gzip.compress(b"{}\n" * 1_000)[:-cut]
    file = inflated(io.BufferedReader(io.BytesIO(content)))
    found: list[Line] = []
    with pytest.raises(UnreadableFile, match=r"^it cannot be read after line \d+: "):
        found.extend(read_lines(file, line_bytes_max=1_000))
    assert all(line.text == b"{}" for line in found)


def test_an_endless_line_takes_no_memory() -> None:
    content = gzip.compress(b"x" * 50_000_000)
    tracemalloc.start()
    [line] = lines_in(content, line_bytes_max=100_000)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.flaw
    assert peak_bytes < 5_000_000
