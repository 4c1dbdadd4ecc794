"""The README's two snippets, run as they are printed, against a server in which the user is qualified."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.datafile import EXPERIMENT_SEGMENT, datafile
from tests.readme import ADDRESS, blocks, section
from tests.serverprocess import ServerProcess

USER = "u-17"


@pytest.fixture
def qualified(server: ServerProcess) -> ServerProcess:
    """The server, with the snippets' user in the segment that the flag asks for."""
    event = {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": USER},
        "data": {"audience_id": "a"},
    }
    segment = {"definition": {"external": {"external_audience_id": "a"}}}
    with server.client(server.private_key) as client:
        client.put(f"/v3/segments/{EXPERIMENT_SEGMENT}", json=segment).raise_for_status()
        client.post("/v3/events", json=event).raise_for_status()
    return server


def snippet(language: str, server: ServerProcess) -> str:
    found = next(block.text for block in blocks(section("Connecting the SDKs")) if block.language == language)
    assert USER in found
    return found.replace(ADDRESS, server.url).replace("dev-public", server.public_key)


def write_datafile(folder: Path) -> None:
    """As Optimizely serves it, with an integration that leads nowhere: the snippet has to replace it."""
    (folder / "datafile.json").write_text(json.dumps(datafile("http://127.0.0.1:9", "none")), encoding="utf-8")


def test_the_python_snippet_finds_the_segment_and_the_flag(qualified: ServerProcess, tmp_path: Path) -> None:
    write_datafile(tmp_path)
    # Decision events would go to Optimizely's own host; nothing is there to answer in a test.
    program = snippet("python", qualified).replace(
        "datafile=json.dumps(datafile))", "datafile=json.dumps(datafile), event_dispatcher=Silent)"
    )
    program = "class Silent:\n    dispatch_event = staticmethod(lambda event: None)\n\n" + program
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"['{EXPERIMENT_SEGMENT}'] True\n"), result.stderr


def test_the_javascript_snippet_finds_the_segment_and_the_flag(
    qualified: ServerProcess, javascript: Path, tmp_path: Path
) -> None:
    write_datafile(tmp_path)
    # Here version 6 is installed under an alias, beside version 5.
    packages = tmp_path / "node_modules" / "@optimizely"
    packages.mkdir(parents=True)
    (packages / "optimizely-sdk").symlink_to(javascript / "node_modules" / "optimizely-sdk-6")
    (tmp_path / "snippet.mjs").write_text(snippet("js", qualified), encoding="utf-8")
    result = subprocess.run(["node", "snippet.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"[ '{EXPERIMENT_SEGMENT}' ] true\n"), result.stderr
