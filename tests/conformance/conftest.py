"""Fixtures of the conformance tests: a server for each module and kind of store, and the published JavaScript clients.

Node is optional for a developer and not for CI: without it the tests that need it say what they skip, and with
`CI=true` they fail.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import NONE_HERE
from tests.cluster.engines import find_engine
from tests.serverprocess import ServerProcess, log_shown

JAVASCRIPT = Path(__file__).parent / "js"


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def module_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server over each kind of store for the tests of a module; they must not share identifiers or segments."""
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        sections: dict[str, dict[str, object]] = {}
        if request.param == "cluster":
            if find_engine() is None:
                pytest.skip(NONE_HERE)
            cluster = stack.enter_context(Cluster(folder / "cluster"))
            sections["store"] = {"kind": "cluster", "addresses": cluster.addresses}
        server = stack.enter_context(ServerProcess(folder, sections))
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
