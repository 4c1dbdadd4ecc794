"""One server for the tests that only look."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serverprocess import ServerProcess

SECTIONS: dict[str, dict[str, float]] = {
    "compliance": {"scrub_seconds_min": 0.05},
    "members": {"page_members_max": 1_000},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, SECTIONS) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client(server.private_key) as client:
        yield client
