"""The journal: numbers that never come twice, cuts, and a full map."""

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from segmentd.storage import journal as journal_module
from segmentd.storage.errors import FolderUnusableError, StoreFullError
from segmentd.storage.journal import CUT_RECORDS_MAX, Journal
from tests.storage.stored import MAP_BYTES

SMALL_MAP_BYTES = 256 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path, map_bytes=MAP_BYTES)
    yield opened
    opened.close()


@pytest.fixture
def small(path: Path) -> Iterator[Journal]:
    opened = Journal(path, map_bytes=SMALL_MAP_BYTES)
    yield opened
    opened.close()


def records(journal: Journal, after: int = 0) -> list[tuple[int, bytes]]:
    return list(journal.records(after))


def pinned(journal: Journal) -> list[str]:
    """The transaction numbers that readers hold on to. LMDB lists pid, thread and number; `-` is none."""
    lines = journal._env.readers().splitlines()[1:]
    return [number for number in (line.split()[2] for line in lines) if number != "-"]


def fill(journal: Journal, blob: bytes) -> int:
    """Append until the map is full; returns how many records fit."""
    for count in range(1_000_000):
        try:
            journal.append(blob)
        except StoreFullError:
            return count
    raise AssertionError("the map never fills")


def test_records_are_numbered_from_one_and_read_back_in_order(journal: Journal) -> None:
    assert journal.last_seq == 0
    assert [journal.append(blob) for blob in (b"a", b"bb", b"")] == [1, 2, 3]
    assert records(journal) == [(1, b"a"), (2, b"bb"), (3, b"")]
    assert records(journal, 2) == [(3, b"")]
    assert records(journal, 3) == []
    assert (journal.records_held, journal.bytes_held, journal.last_seq, journal.oldest_seq) == (3, 3, 3, 1)


def test_an_append_cuts_what_it_may_and_no_more(journal: Journal) -> None:
    for blob in (b"a", b"bb", b"ccc"):
        journal.append(blob)
    assert journal.append(b"dddd", cut_to=2) == 4
    assert records(journal) == [(3, b"ccc"), (4, b"dddd")]
    assert (journal.records_held, journal.bytes_held, journal.oldest_seq) == (2, 7, 3)


def test_an_append_may_cut_all_that_was_there_and_keeps_itself(journal: Journal) -> None:
    journal.append(b"a")
    journal.append(b"bb", cut_to=99)
    assert records(journal) == [(2, b"bb")]
    assert (journal.oldest_seq, journal.bytes_held) == (2, 2)


def test_one_append_cuts_a_bounded_number_of_records(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CUT_RECORDS_MAX == 1_000
    monkeypatch.setattr(journal_module, "CUT_RECORDS_MAX", 2)
    for _ in range(5):
        journal.append(b"x")
    journal.append(b"x", cut_to=5)
    assert [seq for seq, _ in records(journal)] == [3, 4, 5, 6]


def test_a_reopened_journal_goes_on_where_it_was(path: Path, journal: Journal) -> None:
    for blob in (b"a", b"bb", b"ccc"):
        journal.append(blob, cut_to=1)
    journal.close()
    again = Journal(path, map_bytes=MAP_BYTES)
    assert (again.records_held, again.bytes_held, again.last_seq, again.oldest_seq) == (2, 5, 3, 2)
    assert again.append(b"d", cut_to=2) == 4
    assert records(again) == [(3, b"ccc"), (4, b"d")]
    again.close()


def test_numbers_are_not_used_again_after_everything_was_cut(path: Path, journal: Journal) -> None:
    for _ in range(3):
        journal.append(b"x", cut_to=99)
    journal.close()
    # The one record that is left goes, as it would if a store without a journal were restored.
    with lmdb.open(str(path), map_size=MAP_BYTES) as env, env.begin(write=True) as txn:
        assert txn.delete((3).to_bytes(8, "big"))
    again = Journal(path, map_bytes=MAP_BYTES)
    again.continue_after(3)
    assert again.last_seq == 3
    assert again.append(b"y") == 4
    again.continue_after(2)
    assert again.append(b"z") == 5
    again.close()


def test_a_reader_sees_one_snapshot(journal: Journal) -> None:
    journal.append(b"a")
    journal.append(b"b")
    reading = journal.records(0)
    assert next(reading) == (1, b"a")
    journal.append(b"c", cut_to=2)
    assert list(reading) == [(2, b"b")]
    assert records(journal) == [(3, b"c")]


def test_a_reader_that_stops_early_lets_go_of_its_snapshot(journal: Journal) -> None:
    for _ in range(3):
        journal.append(b"x")
    for seq, _ in journal.records(0):
        if seq == 2:
            break
    assert pinned(journal) == []
    reading = journal.records(0)
    next(reading)
    assert pinned(journal) == ["3"]


@pytest.mark.parametrize("size", [100, 3_000, 50_000])
def test_in_a_full_map_nothing_is_written_and_a_cut_makes_room_again(small: Journal, size: int) -> None:
    count = fill(small, b"x" * size)
    assert (small.last_seq, small.records_held, len(records(small))) == (count, count, count)
    with pytest.raises(StoreFullError, match="map is full; raise its map_bytes setting and restart"):
        small.append(b"y" * size)
    assert (small.last_seq, small.bytes_held, len(records(small))) == (count, count * size, count)
    assert small.append(b"z" * size, cut_to=count) == count + 1
    held = records(small)
    assert held[-1] == (count + 1, b"z" * size)
    assert small.oldest_seq == held[0][0] > 1
    assert small.bytes_held == sum(len(blob) for _, blob in held)


def test_a_full_map_can_be_filled_and_cut_again_and_again(small: Journal) -> None:
    for _ in range(5):
        fill(small, b"x" * 500)
        last = small.last_seq
        while small.oldest_seq <= last:
            small.append(b"y", cut_to=last)
    assert small.map_bytes_used() < SMALL_MAP_BYTES + journal_module.CUT_RESERVE_BYTES


def test_a_full_map_that_may_not_be_cut_stays_full_until_it_is_enlarged(path: Path, small: Journal) -> None:
    count = fill(small, b"x" * 3_000)
    with pytest.raises(StoreFullError):
        small.append(b"x" * 3_000, cut_to=0)
    small.close()
    larger = Journal(path, map_bytes=2 * SMALL_MAP_BYTES)
    assert larger.append(b"y" * 3_000) == count + 1
    larger.close()


def test_a_reader_of_another_process_can_open_a_journal_that_was_cut_in_need(path: Path, small: Journal) -> None:
    last = fill(small, b"x" * 100)
    small.append(b"y", cut_to=last)
    expected = records(small)
    small.close()
    reader = Journal(path, map_bytes=SMALL_MAP_BYTES, read_only=True)
    assert records(reader) == expected
    reader.close()


def test_a_journal_that_is_no_lmdb_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no LMDB" * 10_000)
    with pytest.raises(FolderUnusableError, match=r"data.mdb: is damaged: the meta page at byte 0 is garbled"):
        Journal(tmp_path, map_bytes=MAP_BYTES)


def test_reading_where_there_is_no_journal_makes_none(tmp_path: Path) -> None:
    with pytest.raises(FolderUnusableError):
        Journal(tmp_path / "nowhere", map_bytes=MAP_BYTES, read_only=True)
    assert not (tmp_path / "nowhere").exists()
