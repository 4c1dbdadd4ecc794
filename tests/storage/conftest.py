"""Real LMDB in a folder of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from segmentd.storage.folder import DataFolder
from tests.storage.stored import Store, open_folder

settings.register_profile("segmentd", deadline=None)
settings.load_profile("segmentd")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with open_folder(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def store(folder: DataFolder) -> Iterator[Store]:
    opened = Store(folder)
    yield opened
    opened.close()
