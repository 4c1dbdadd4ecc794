"""The README's code blocks, for the tests that do what a reader would do."""

import re
from typing import NamedTuple

from tests.sources import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")

# Where the README's server listens.
ADDRESS = "http://127.0.0.1:8080"


class Block(NamedTuple):
    """One fenced block: its language and its text."""

    language: str
    text: str


def section(title: str) -> str:
    """The text below the heading `## title`, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {title!r}"
    return found[1]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
