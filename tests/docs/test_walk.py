"""The walk through a document notices what is wrong with it: otherwise a green test would say nothing."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import Block, anchors, blocks, links
from tests.docs.walk import Walk

FENCE = "```"


def block(info: str, text: str) -> str:
    return f"{FENCE}{info}\n{text}\n{FENCE}\n\n"


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    """Not entered: the documents here need no server."""
    return Walk(tmp_path, Path("document.md"))


@pytest.mark.parametrize(
    "text",
    [
        block("sh", "true") + block("sh exit=2", "(exit 2)"),
        block("sh", 'echo \'{"id":"0123456789ab","a":[1]}\'') + block("json", '{"a": [1], "id": "ffffffffffff"}'),
        block("sh", "echo one; echo two; echo three") + block("text", "one\n...\nth..."),
        block("sh", "echo one") + block("text", "...\none\n..."),
        block("sh", "echo problem >&2") + block("text", "problem"),
        block("sh", "export A=1") + block("sh", 'echo "$A"') + block("text", "1"),
        block("python say.py", "print(7)") + block("sh", "python say.py") + block("text", "7"),
        block("toml", "[limits]\naudiences_max = 5"),
        "*Not run by the tests: it needs a moon.*\n\n" + block("sh", "exit 1"),
    ],
)
def test_what_holds_passes(walk: Walk, text: str) -> None:
    walk.through(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (block("sh", "true") + block("sh", "false"), 5),
        (block("sh exit=2", "true"), 1),
        (block("sh", "echo '{\"a\":1}'") + block("json", '{"a":2}'), 5),
        (block("sh", "echo one") + block("text", "two"), 5),
        (block("sh", "echo one; echo two") + block("text", "one"), 5),
        (block("sh", "echo no json") + block("json", "{}"), 5),
        (block("toml", "[limits]\naudiences_max = 0"), 1),
        (block("python", "print(1)"), 1),
        (block("", "anything"), 1),
    ],
)
def test_what_does_not_hold_is_named_with_its_line(walk: Walk, text: str, line: int) -> None:
    with pytest.raises(AssertionError, match=re.escape(f"document.md, block at line {line}: ")):
        walk.through(text)


def test_blocks_links_and_anchors_are_found() -> None:
    text = "# A `b`, c-d\n\n[x](y.md#z) ![p](q.png)\n\n" + block("sh exit=1", "# no [heading](nowhere)")
    assert blocks(text) == [Block("sh", "exit=1", "# no [heading](nowhere)\n", "", 5)]
    assert links(text) == ["y.md#z", "q.png"]
    assert anchors(text) == {"a-b-c-d"}
