"""Every target holds for its corpus, and for as many inputs again as atheris makes of it in some seconds."""

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.fuzz.targets import TARGETS
from tests.sources import ROOT

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
RUNS = 3_000
SEED = 1
INPUTS = sorted(path for path in CORPUS.glob("*/*"))


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus_breaks_no_promise(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason=f"atheris has no wheel for Python {platform.python_version()} on {platform.machine()}",
)
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_made_of_the_corpus_breaks_no_promise(target: str, tmp_path: Path) -> None:
    options = [f"-runs={RUNS}", f"-seed={SEED}", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.hostile.fuzz", target, str(tmp_path), str(CORPUS / target), *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stderr[-5_000:]
    assert f"number_of_executed_units: {RUNS}" in run.stderr
