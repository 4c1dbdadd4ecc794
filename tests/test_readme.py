"""The README does what it says: its calls are made as they are printed, and answered as it prints."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segmentd.settings import Settings, load
from tests.readme import ADDRESS, README, blocks, section
from tests.serverprocess import ServerProcess, key_settings, log_shown
from tests.sources import ROOT

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CALLS = ["create a segment", "qualify", "query", "list", "disqualify", "query"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with the keys of the development configuration."""
    keys = {f"keys.{key}": key_settings(key, key.removeprefix("dev-")) for key in ("dev-public", "dev-private")}
    with ServerProcess(tmp_path, keys) as server, log_shown(server):
        yield server


def paste(command: str, server: ServerProcess) -> bytes:
    """What a reader sees who pastes `command`, were the server at the README's address."""
    pasted = ["bash", "-euo", "pipefail", "-c", command.replace(ADDRESS, server.url)]
    result = subprocess.run(pasted, capture_output=True, check=False)
    assert result.returncode == 0, f"{command}\nfailed: {result.stderr.decode()}"
    return result.stdout


def without_time(answer: Any) -> Any:
    """The answer, its timestamp checked for its form and then left out."""
    if isinstance(answer, dict) and "timestamp" in answer:
        assert TIMESTAMP.fullmatch(answer["timestamp"])
        return {name: value for name, value in answer.items() if name != "timestamp"}
    return answer


@pytest.mark.skipif(shutil.which("curl") is None and os.environ.get("CI") != "true", reason="the tour needs curl")
def test_the_tour_is_answered_as_printed(server: ServerProcess) -> None:
    tour = blocks(section("A tour"))
    assert [block.language for block in tour] == ["sh", "json"] * len(CALLS)
    for call, (command, printed) in zip(CALLS, zip(tour[::2], tour[1::2], strict=True), strict=True):
        answer = paste(command.text, server)
        assert without_time(msgspec.json.decode(answer)) == without_time(msgspec.json.decode(printed.text)), call


def test_the_two_commands_stand_at_the_top_and_are_in_the_makefile() -> None:
    first = blocks(README)[0].text
    assert re.findall(r"^make (\w+)", first, re.MULTILINE) == ["serve", "test"]
    assert README.index("make serve") < README.index("\n## ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert f"\n{target}:" in makefile


def test_the_limits_are_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (\d+) \|$", section("Limits"), re.MULTILINE)
    assert len(rows) >= 10
    settings = Settings()
    assert {(s, key): int(value) for s, key, value in rows} == {
        (s, key): getattr(getattr(settings, s), key) for s, key, _ in rows
    }


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    example = next(block.text for block in blocks(section("Configuration")) if block.language == "toml")
    path = tmp_path / "segmentd.toml"
    path.write_text(example, encoding="utf-8")
    assert load(path, {}).storage.path == tomllib.loads(example)["storage"]["path"]


def test_the_example_of_a_wrong_setting_is_what_is_printed(tmp_path: Path) -> None:
    printed = next(block.text for block in blocks(section("Configuration")) if block.language == "text")
    (tmp_path / "segmentd.toml").write_text("[limits]\naudiences_max = 0\n", encoding="utf-8")
    command = [sys.executable, "-m", "segmentd", "serve", "--config", "segmentd.toml"]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, printed)


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
