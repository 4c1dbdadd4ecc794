"""A backup that finds no room says so of the copy, leaves nothing of it, and succeeds when there is room."""

import resource
from pathlib import Path

import pytest

from segmentd.domain.membership import word_of
from segmentd.storage.backup import back_up
from segmentd.storage.errors import FolderUnusableError
from tests.storage.stored import MAP_BYTES, Store, open_folder

FILE_BYTES_MAX = 64 * 1024


def test_a_backup_without_room_names_the_copy_and_leaves_nothing(tmp_path: Path) -> None:
    with open_folder(tmp_path / "data") as folder:
        store = Store(folder)
        store.append([(b"\0%06d" % number + b"x" * 100, word_of(1, 2)) for number in range(2_000)])
        store.close()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, limits[1]))
        try:
            with pytest.raises(
                FolderUnusableError, match=r"copy: the backup failed: .*cannot be copied to .*copy\.part"
            ):
                back_up(folder, tmp_path / "copy", journal_map_bytes=MAP_BYTES)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        assert back_up(folder, tmp_path / "copy", journal_map_bytes=MAP_BYTES) > 0
