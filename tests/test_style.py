"""The rules of style that a machine can hold: sizes, names, docstrings, and what the project never mentions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import name_of, python_files, text_files, tree

MODULE_LINES_MAX = 300
TEST_MODULE_LINES_MAX = 400  # tables of cases are long and read quickly
FUNCTION_LINES_MAX = 50  # what a screen shows; without the docstring

# A module with such a name gathers whatever has no home.
HOMELESS_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "process", "data"}

# Built from pieces, so that this file does not contain what it forbids.
_FOLDERS_OF_ONE_MACHINE = "|".join(f"/{folder}/" for folder in ("work", "tmp", "root", "home"))
MACHINE_PATH = re.compile(rf"(?<![\w.~\-}}])({_FOLDERS_OF_ONE_MACHINE})")
REGISTRY_HOST = re.compile(
    "|".join((r"pypi\.o" + "rg", r"registry\.npm" + r"js", r"pythonhost" + "ed", r"index-" + "url"))
)
UNFINISHED = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + "X)\b")


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring and without functions defined inside."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    inner = [node for child in function.body for node in functions(ast.Module([child], []))]
    outermost = [node for node in inner if not any(node is not other and node in ast.walk(other) for other in inner)]
    return lines - sum((node.end_lineno or 0) - node.lineno + 1 for node in outermost)


def names_defined(module: ast.Module) -> set[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name.lower() for node in ast.walk(module) if isinstance(node, kinds)}


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    lines_max = TEST_MODULE_LINES_MAX if name_of(path).startswith("tests/") else MODULE_LINES_MAX
    assert len(path.read_text(encoding="utf-8").splitlines()) <= lines_max


@pytest.mark.parametrize("path", python_files("segmentd"), ids=name_of)
def test_a_function_fits_a_screen(path: Path) -> None:
    lengths = {function.name: length(function) for function in functions(tree(path))}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_no_module_has_a_name_that_says_nothing(path: Path) -> None:
    assert not {path.stem, *path.parent.parts} & HOMELESS_NAMES
    assert not {name for name in names_defined(tree(path)) if name.endswith(("manager", "helper", "utils"))}


@pytest.mark.parametrize("path", python_files("segmentd", "bench"), ids=name_of)
def test_a_module_says_what_it_owns(path: Path) -> None:
    module = tree(path)
    assert not module.body or ast.get_docstring(module)


@pytest.mark.parametrize("path", text_files(), ids=name_of)
def test_a_file_names_no_machine_and_no_registry_and_leaves_nothing_unfinished(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    for pattern in (MACHINE_PATH, REGISTRY_HOST, UNFINISHED):
        found = pattern.search(text)
        assert found is None, f"line {text[: found.start()].count(chr(10)) + 1}: {found[0]}"


def test_the_length_of_a_function_leaves_out_docstring_and_inner_functions() -> None:
    source = 'def outer():\n    """One\n\n    two."""\n    def inner():\n        return 1\n    return inner\n'
    assert [length(function) for function in functions(ast.parse(source))] == [2, 2]


@pytest.mark.parametrize(
    "line", [f"path = '/{folder}/x'" for folder in ("work", "tmp", "root", "home")] + ["see /" + "tmp/file"]
)
def test_a_path_of_one_machine_is_found(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["mktemp -d", "tmp_path / 'x'", "bench/work" + "/load.py", "{folder}/tmp" + "/x"])
def test_a_relative_path_is_none(line: str) -> None:
    assert not MACHINE_PATH.search(line)
