"""The server does what its `/openapi.json` says, whatever is sent: no 5xx and no undocumented answer is found."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY, ServerProcess

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_MAX = 15
SEED = 17
OPERATIONS_MIN = 10


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
