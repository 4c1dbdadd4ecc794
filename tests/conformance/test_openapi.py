"""The server does what its `/openapi.json` says, whatever is sent: no 5xx and no undocumented answer is found."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY, ServerProcess

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_MAX = 15
SEED = 17
OPERATIONS_MIN = 10


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets its client try as many wrong keys as it likes: 429 in their place would be no finding."""
    with ServerProcess(tmp_path_factory.mktemp("server"), {"rates": {"wrong_keys_per_minute": 0}}) as server:
        yield server
        server.terminate()


@pytest.mark.parametrize("key", [PRIVATE_KEY, PUBLIC_KEY, "no such key", None])
def test_every_answer_is_a_documented_one(server: ServerProcess, tmp_path: Path, key: str | None) -> None:
    folder = Path(sys.executable).parent
    program = shutil.which("schemathesis", path=str(folder))
    assert program is not None, f"schemathesis is not installed in {folder}"
    command = [
        *(program, "--config-file", str(CONFIGURATION), "run", f"{server.url}/openapi.json", "--checks", "all"),
        *("--max-examples", str(EXAMPLES_MAX), "--seed", str(SEED), "--generation-database", "none", "--no-color"),
        *(() if key is None else ("--header", f"x-api-key: {key}")),
    ]
    # It writes its files into the current folder.
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    tested = re.search(r"Tested: (\d+)", run.stdout)
    assert tested is not None, run.stdout
    assert int(tested[1]) >= OPERATIONS_MIN
