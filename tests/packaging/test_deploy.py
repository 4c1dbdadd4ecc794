"""The files for operators are looked at by the tools that know their formats."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

SERVICE = ROOT / "deploy" / "systemd" / "segmentd.service"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# systemd's own scale, 0 (nothing allowed) to 10; below 2.5 is what it calls OK.
EXPOSURE_MAX = 2.0
NO_SYSTEMD = shutil.which("systemd-analyze") is None


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(NO_SYSTEMD, reason="there is no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / SERVICE.name
    program = "/opt/segmentd/bin/segmentd"
    text = SERVICE.read_text(encoding="utf-8")
    assert program in text
    unit.write_text(text.replace(program, "/bin/true"), encoding="utf-8")  # it has to exist where it is verified
    verified = run("systemd-analyze", "verify", str(unit))
    assert [line for line in verified.stderr.splitlines() if unit.name in line] == []
    assert verified.returncode == 0, verified.stderr


@pytest.mark.skipif(NO_SYSTEMD, reason="there is no systemd-analyze here")
def test_the_unit_is_hardened() -> None:
    rated = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(SERVICE))
    level = re.search(r"exposure level for \S+: (\d+\.\d+)", rated.stdout)
    assert level, rated.stderr
    assert float(level[1]) <= EXPOSURE_MAX


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("there is no hadolint for this platform")
    linted = run(program, str(DOCKERFILE))
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_the_container_is_not_root_and_tells_its_health() -> None:
    final = DOCKERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/healthz", final, re.MULTILINE)
