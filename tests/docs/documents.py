"""The documentation as data: documents, their fenced blocks, headings and links.

A block is one of these, by the line that opens it:

    ```sh                  commands, run by bash one block after the other, in one folder
    ```sh exit=2           likewise, and they end with 2
    ```json, ```text       what the commands just above answer
    ```python fetch.py     a file; whatever the language, a second word is its name
    ```toml                a part of a configuration

Any other block has the line `*Not run by the tests: <reason>*` above it, which readers see.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from tests.sources import ROOT

DOCS: Final = ROOT / "docs"
README: Final = ROOT / "README.md"
# The guide whose examples need the published SDKs; tests/conformance runs it.
SDKS: Final = DOCS / "sdks.md"

_BLOCK = re.compile(
    r"^(?:\*Not run by the tests: (?P<reason>[^\n]+)\*\n+)?^```(?P<info>\w[^\n]*)?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!`)\[[^\]\n]+(?:\n[^\]\n]+)?\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block. argument: the second word after the fence, or "". reason: why it is not run, or ""."""

    language: str
    argument: str
    text: str
    reason: str
    line: int


def documents() -> list[Path]:
    """README.md and every guide."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def markdown_files() -> list[Path]:
    """Every Markdown file of the project."""
    folders = [ROOT / name for name in ("docs", "segmentd", "bench", "tests", "deploy")]
    found = {path for folder in folders for path in folder.rglob("*.md") if "node_modules" not in path.parts}
    return sorted({*ROOT.glob("*.md"), *found})


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        language, _, argument = (match["info"] or "").partition(" ")
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(language, argument, match["text"], match["reason"] or "", line))
    return found


def links(text: str) -> list[str]:
    """Where the links and pictures of a text lead, outside its blocks."""
    return _LINK.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """What `#...` may name in a text, as GitHub derives it from the headings."""
    return {_anchor(heading) for heading in _HEADING.findall(_BLOCK.sub("", text))}


def section(text: str, title: str) -> str:
    """The part below the heading `## title`, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def _anchor(heading: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return plain.replace(" ", "-")
