"""The data folder: one owner, one format, and a clear word when it cannot be used."""

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segmentd.storage.errors import FolderLockedError, FolderUnusableError, FormatTooNewError
from segmentd.storage.folder import FORMAT, DataFolder
from tests.storage.stored import MAP_BYTES, Store, open_folder

HOLD = """
import sys, pathlib
from segmentd.storage.folder import DataFolder
folder = DataFolder(pathlib.Path(sys.argv[1]), journal_map_bytes=2**26, index_map_bytes=2**26)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the folder, until it is killed or the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names in a folder, each time that a folder is synced."""
    synced: list[set[str]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            synced.append(set(os.listdir(handle)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return synced


def test_a_power_cut_while_a_folder_is_made_leaves_no_store_without_its_format(
    tmp_path: Path, on_disk: list[set[str]]
) -> None:
    open_folder(tmp_path / "data").close()
    first = next(names for names in on_disk if "format.json" in names)
    assert not first & {"journal", "index"}, "a cut may leave the folders and not the format"


def test_a_store_that_is_made_late_outlasts_a_power_cut(tmp_path: Path, on_disk: list[set[str]]) -> None:
    open_folder(tmp_path / "data").close()
    # So the power was cut just after the format was written.
    for name in ("journal", "index"):
        (tmp_path / "data" / name).rmdir()
    on_disk.clear()
    with open_folder(tmp_path / "data") as folder:
        Store(folder).close()
    assert any({"format.json", "journal", "index"} <= names for names in on_disk)


def test_a_new_folder_is_made_with_its_format(tmp_path: Path) -> None:
    with open_folder(tmp_path / "a" / "b") as folder:
        assert json.loads((folder.path / "format.json").read_bytes()) == {"format": FORMAT}
        Store(folder).close()
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["format.json", "index", "journal", "lock"]


def test_a_folder_of_another_process_is_refused_and_free_again_when_that_is_killed(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as process:
        with pytest.raises(FolderLockedError, match=f"{tmp_path}: another segmentd process uses this folder"):
            open_folder(tmp_path)
        process.kill()
        process.wait()
        with open_folder(tmp_path) as folder:
            assert folder.path == tmp_path


def test_a_closed_folder_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with open_folder(tmp_path), pytest.raises(FolderLockedError):
            open_folder(tmp_path)


def test_the_checkpointer_opens_the_folder_of_its_parent_without_the_lock(tmp_path: Path) -> None:
    with open_folder(tmp_path):
        open_folder(tmp_path, lock=False).close()


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    open_folder(tmp_path).close()
    (tmp_path / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    expected = f"has format {FORMAT + 1}; this segmentd reads up to format {FORMAT}, use a newer one"
    with pytest.raises(FormatTooNewError, match=expected):
        open_folder(tmp_path)
    (tmp_path / "format.json").write_text(json.dumps({"format": FORMAT}))
    open_folder(tmp_path).close()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "7", '{"format":"1"}', '{"format":0}', '{"format":null}', "\xff"]
)
def test_a_damaged_format_is_refused_and_named(tmp_path: Path, content: str) -> None:
    open_folder(tmp_path).close()
    (tmp_path / "format.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(FolderUnusableError, match=r"format\.json: (is damaged|has no valid format number)"):
        open_folder(tmp_path)


@pytest.mark.parametrize("part", ["index", "journal"])
def test_a_store_without_its_format_is_not_taken_for_a_new_folder(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    with pytest.raises(FolderUnusableError, match=r"holds a store but no format\.json; is it damaged\?"):
        open_folder(tmp_path)
    assert not (tmp_path / "format.json").exists()


def test_checking_what_is_no_data_folder_makes_none(tmp_path: Path) -> None:
    with pytest.raises(FolderUnusableError, match=r"this is no data folder of segmentd \(format\.json is missing\)"):
        DataFolder(tmp_path / "x", journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, create=False)
    assert not (tmp_path / "x").exists()


def test_a_crash_while_the_folder_was_made_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "format.part").write_text("{")
    with open_folder(tmp_path) as folder:
        Store(folder).close()
    for made in ("journal", "index"):
        for file in (tmp_path / made).iterdir():
            file.unlink()
        (tmp_path / made).rmdir()
    # Only format.json came so far as to be named, and it says of no store that it was ever there.
    (tmp_path / "format.json").write_text(json.dumps({"format": FORMAT}))
    with open_folder(tmp_path) as folder:
        Store(folder).close()


@contextmanager
def not_as_root() -> Iterator[None]:
    """Root may write everywhere; nobody may not."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home)
        path.chmod(0o555)
        with not_as_root(), pytest.raises(FolderUnusableError, match="Permission denied"):
            open_folder(path)
        with not_as_root(), pytest.raises(FolderUnusableError, match="Permission denied"):
            open_folder(path / "data")
        path.chmod(0o755)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(FolderUnusableError, match=str(path)):
            open_folder(path)


def test_a_format_that_is_refused_gives_the_lock_back(tmp_path: Path) -> None:
    open_folder(tmp_path).close()
    (tmp_path / "format.json").write_text("{")
    for _ in range(2):
        with pytest.raises(FolderUnusableError):
            open_folder(tmp_path)


def test_numbers_of_identifier_names_stay_whatever_is_configured_later(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        store = Store(folder)
        assert store.index.kind_numbers(["user", "email"]) == {"user": 0, "email": 1}
        assert store.index.kind_numbers(["vuid", "email", "user"]) == {"user": 0, "email": 1, "vuid": 2}
        store.reopen()
        assert store.index.kind_numbers(["new"]) == {"user": 0, "email": 1, "vuid": 2, "new": 3}
        store.close()


@pytest.mark.parametrize("name", ["journal", "index"])
def test_what_a_scrub_replaces_between_the_look_and_the_opening_is_looked_for_again(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Store(folder).close()
    looks = iter(["gone"])
    generation = folder.generation
    monkeypatch.setattr(folder, "generation", lambda: next(looks, None) or generation())
    opened = folder.open_journal(read_only=True) if name == "journal" else folder.open_index(read_only=True)
    assert opened.path == folder.path / name
    opened.close()


def no_rmdir(path: Path) -> None:
    """What `rmtree` meets when a reader makes the lock file anew."""
    for file in path.iterdir():
        file.unlink()
    (path / "lock.mdb").touch()
    path.rmdir()


def no_rmtree(path: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_an_old_folder_in_which_a_reader_makes_its_lock_anew_is_no_failure(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = folder.make_generation("old")
    (old / "data.mdb").touch()
    with monkeypatch.context() as patch:
        patch.setattr("segmentd.storage.folder.shutil.rmtree", no_rmdir)
        folder.remove_other_generations()
    assert [file.name for file in old.iterdir()] == ["lock.mdb"]
    folder.remove_other_generations()
    assert not old.exists()


def test_old_data_that_cannot_be_removed_is_a_failure(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.make_generation("old") / "data.mdb").touch()
    monkeypatch.setattr("segmentd.storage.folder.shutil.rmtree", no_rmtree)
    with pytest.raises(OSError, match="Input/output error"):
        folder.remove_other_generations()


def test_folders_that_are_still_open_stay(folder: DataFolder) -> None:
    index = folder.make_generation("open")
    folder.remove_other_generations(index)
    assert index.exists()
    assert not (folder.path / "journal-open").exists()
