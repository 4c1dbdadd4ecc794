"""A file of the store that was cut off or garbled is named with what to do; it never ends a process by a signal."""

import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from segmentd.domain.membership import word_of
from tests.storage.stored import Store, open_folder

PAGE_BYTES = 4096


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with some pages in the index and in the journal, overflow pages among them."""
    with open_folder(tmp_path / "data") as folder:
        store = Store(folder)
        store.append([(b"\0%06d" % number + b"x" * 100, word_of(1, 2)) for number in range(2_000)])
        store.fold_all()
        store.append([(b"\0%06d" % number + b"y" * 100, word_of(1, 2)) for number in range(500)])
        store.close()
    return tmp_path / "data"


def check(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segmentd", "check", "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_named(done: subprocess.CompletedProcess[str], file: Path) -> None:
    assert done.returncode == 1, done
    assert done.stderr.startswith(f"segmentd: {file}: is damaged: "), done.stderr
    assert "restore a backup" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("part", ["journal", "index"])
@pytest.mark.parametrize("pages", [0.01, 1, 2, 3, -1], ids=str)
def test_a_file_that_was_cut_off_is_named(data: Path, part: str, pages: float) -> None:
    file = data / part / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(pages * PAGE_BYTES)])
    assert_named(check(data), file)
    file.write_bytes(whole)
    assert check(data).returncode == 0, "what was put back is whole"


@pytest.mark.parametrize("part", ["journal", "index"])
@pytest.mark.parametrize("offset", [0, PAGE_BYTES])
def test_a_garbled_meta_page_is_named(data: Path, part: str, offset: int) -> None:
    file = data / part / "data.mdb"
    whole = bytearray(file.read_bytes())
    whole[offset : offset + 64] = b"\xa5" * 64
    file.write_bytes(whole)
    assert_named(check(data), file)


def test_a_file_without_pages_at_its_end_that_nothing_uses_is_whole(data: Path) -> None:
    file = data / "journal" / "data.mdb"
    with lmdb.open(str(file.parent)) as env:
        with env.begin(write=True) as txn:
            txn.put(b"\xff" * 8, b"x" * 20 * PAGE_BYTES)
        # The free list is copied to a page before those that are free in the end.
        for _ in range(3):
            with env.begin(write=True) as txn:
                txn.delete(b"\xff" * 8)
                txn.put(b"\xfe" * 8, b"")
                txn.delete(b"\xfe" * 8)
    file.write_bytes(file.read_bytes()[: -4 * PAGE_BYTES])
    assert check(data).returncode == 0
