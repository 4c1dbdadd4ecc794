"""One server for the tests that only look, over each kind of store."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serverprocess import PROGRAMS, ServerProcess

SECTIONS: dict[str, dict[str, float]] = {
    "compliance": {"scrub_seconds_min": 0.05},
    "members": {"page_members_max": 1_000},
}


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, SECTIONS, program=request.param) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client(server.private_key) as client:
        yield client
