"""RELIABILITY.md names tests, and each of them is there."""

import re

import pytest

from tests.sources import ROOT

TEXT = (ROOT / "segmentd" / "RELIABILITY.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`((?:tests|docs|segmentd|bench|\.ci)/[^`\s]+)`", TEXT)))
TESTS = sorted(set(re.findall(r"\b(test_\w{12,})\b(?!\.py)", TEXT)))


def test_it_names_tests() -> None:
    assert len(PATHS) > 20
    assert len(TESTS) > 8


@pytest.mark.parametrize("path", PATHS)
def test_what_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", TESTS)
def test_every_test_that_it_names_is_defined(name: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def {name}(" in source for source in sources)
