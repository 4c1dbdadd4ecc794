"""The program's own files, as text and as syntax trees, for the tests that read them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("segmentd", "tests", "bench")
MADE_BY_TOOLS = {"node_modules", "__pycache__"}


def python_files(*folders: str) -> list[Path]:
    """Every Python file below `folders` (default: all of ours), sorted."""
    return sorted(path for folder in folders or FOLDERS for path in _files(ROOT / folder) if path.suffix == ".py")


def text_files() -> list[Path]:
    """Every file that a reader of the project may open: the folders, the configuration, and what lies at the top."""
    top = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".coverage"]
    folders = [ROOT / name for name in (*FOLDERS, "config", "deploy", "docs", ".ci")]
    return sorted([*top, *(path for folder in folders for path in _files(folder))])


def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """A file as a message names it: relative to the project."""
    return str(path.relative_to(ROOT))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not MADE_BY_TOOLS & set(path.parts):
            yield path
