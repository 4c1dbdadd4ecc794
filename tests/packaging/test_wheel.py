"""What deploy/Dockerfile copies makes a wheel that serves from an empty environment, and lacks nothing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOT

NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|No matching distribution found", re.IGNORECASE)
START_LINE = re.compile(r"listening on (http://\S+)")
INSTALL_SECONDS_MAX = 600.0
STOP_SECONDS_MAX = 60.0


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE)
    return [name for line in lines for name in line.split()]


def pip(*arguments: str, python: Path, cwd: Path) -> None:
    command = [str(python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS_MAX)
    if result.returncode and NO_NETWORK.search(result.stderr) and os.environ.get("CI") != "true":
        pytest.skip("pip reaches no packages here")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh virtual environment with nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    source, home = folder / "source", folder / "home"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    pip("wheel", ".", "--no-deps", "--wheel-dir", str(folder), python=python, cwd=source)
    wheel = next(folder.glob("segmentd-*.whl"))
    pip("install", str(wheel), "-c", str(ROOT / "constraints.txt"), python=python, cwd=folder)
    yield home
    shutil.rmtree(folder)


def environ_without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SEGMENTD_", "PYTHON"))}


def test_the_wheel_has_every_file_of_the_package_and_the_examples(environment: Path) -> None:
    installed = next((environment / "lib").glob("python3*")) / "site-packages" / "segmentd"
    package = ROOT / "segmentd"
    ours = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert Path("py.typed") in ours
    assert sorted(path for path in ours if not (installed / path).is_file()) == []
    shared = environment / "share" / "segmentd"
    for folder in ("config", "deploy/systemd", "deploy/prometheus", "deploy/grafana"):
        ours_shared = {path.name for path in (ROOT / folder).iterdir()}
        assert ours_shared
        assert {path.name for path in (shared / Path(folder).name).iterdir()} == ours_shared


def test_what_was_installed_serves_and_its_data_is_sound(environment: Path, tmp_path: Path) -> None:
    command = [str(environment / "bin" / "segmentd")]
    config = environment / "share" / "segmentd" / "config" / "development.toml"
    options = ["--config", str(config), "--data", str(tmp_path / "data")]
    environ = environ_without_ours()
    with subprocess.Popen(
        [*command, "serve", *options, "--listen", "127.0.0.1:0"],
        cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            started = START_LINE.match(server.stdout.readline())
            assert started is not None
            for path in ("/healthz", "/", "/openapi.json"):
                with urllib.request.urlopen(started[1] + path, timeout=STOP_SECONDS_MAX) as answer:
                    assert answer.status == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(STOP_SECONDS_MAX) == 0
        finally:
            server.kill()
    checked = subprocess.run(
        [*command, "check", *options], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout.rstrip().endswith("no differences")) == (0, True), checked.stderr
