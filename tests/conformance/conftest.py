"""Fixtures of the conformance tests: one server for each module, and the published JavaScript clients.

Node is optional for a developer and not for CI: without it the tests that need it say what they skip, and with
`CI=true` they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serverprocess import PROGRAMS, ServerProcess, log_shown

JAVASCRIPT = Path(__file__).parent / "js"


@pytest.fixture(scope="module", params=PROGRAMS)
def module_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One running server of each kind for the tests of a module; they must not share identifiers or segments."""
    with ServerProcess(tmp_path_factory.mktemp("server"), program=request.param) as server:
        yield server
        server.terminate()


@pytest.fixture
def server(module_server: ServerProcess) -> Iterator[ServerProcess]:
    """The module's server; what it logs during the test is shown when the test fails."""
    with log_shown(module_server):
        yield module_server


@pytest.fixture(scope="session")
def javascript() -> Path:
    """The folder of the JavaScript clients, installed in exactly the versions of its package.json."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        _skip_or_fail(f"the JavaScript SDKs and the graphql-http audits are not run: {', '.join(missing)} not found")
    wanted, installed = JAVASCRIPT / "package.json", JAVASCRIPT / "node_modules" / ".installed.json"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        npm = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, check=False)
        assert npm.returncode == 0, f"{' '.join(command)} failed:\n{npm.stderr}"
        shutil.copyfile(wanted, installed)
    return JAVASCRIPT


def _skip_or_fail(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
