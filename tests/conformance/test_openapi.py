"""The server does what its `/openapi.json` says, whatever is sent: no 5xx and no undocumented answer is found."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentd.http.openapi_links import LINKS
from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY, ServerProcess

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_MAX = 15
SEED = 17
OPERATIONS_MIN = 10
CHAINS_MAX = 60


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets its client try as many wrong keys as it likes: 429 in their place would be no finding."""
    with ServerProcess(tmp_path_factory.mktemp("server"), {"rates": {"wrong_keys_per_minute": 0}}) as server:
        yield server
        server.terminate()


def schemathesis(server: ServerProcess, folder: Path, key: str | None, *options: str) -> str:
    """What a run of schemathesis prints that finds nothing wrong."""
    programs = Path(sys.executable).parent
    program = shutil.which("schemathesis", path=str(programs))
    assert program is not None, f"schemathesis is not installed in {programs}"
    command = [
        *(program, "--config-file", str(CONFIGURATION), "run", f"{server.url}/openapi.json", "--checks", "all"),
        # The record of a deletion lies below what was deleted, and is there to be read after it; the check takes that
        # for a thing that was not deleted. That deleted segments and audiences are gone is shown by tests of their own.
        *("--exclude-checks", "use_after_free"),
        *("--seed", str(SEED), "--generation-database", "none", "--no-color", *options),
        *(() if key is None else ("--header", f"x-api-key: {key}")),
    ]
    # It writes its files into the current folder.
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}"
    return run.stdout


@pytest.mark.parametrize("key", [PRIVATE_KEY, PUBLIC_KEY, "no such key", None])
def test_every_answer_is_a_documented_one(server: ServerProcess, tmp_path: Path, key: str | None) -> None:
    said = schemathesis(server, tmp_path, key, "--max-examples", str(EXAMPLES_MAX))
    tested = re.search(r"Tested: (\d+)", said)
    assert tested is not None, said
    assert int(tested[1]) >= OPERATIONS_MIN


def test_what_one_answer_names_the_next_request_finds(server: ServerProcess, tmp_path: Path) -> None:
    """Chains of requests along the links: what was made is there, what was deleted is not, and nothing fails."""
    said = schemathesis(
        server, tmp_path, PRIVATE_KEY, "--phases", "stateful", "--max-examples", str(CHAINS_MAX), "--workers", "1"
    )
    # Links that are defined, and some that are found by the shapes of requests and answers.
    links = re.search(r"API Links:\s+(\d+) covered / (\d+)", said)
    assert links is not None, said
    assert int(links[2]) >= sum(map(len, LINKS.values()))
    assert int(links[1]) > 0
