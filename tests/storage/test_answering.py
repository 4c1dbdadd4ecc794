"""Children whose server has died: nobody reads their answers, and they end without a word."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from segmentd.domain.identifiers import Confidence, IdentifierKind
from segmentd.storage.checkpointer import CheckpointerArguments
from segmentd.storage.importscan import ScanArguments
from segmentd.storage.scrubber import ScrubberArguments
from segmentd.storage.stager import StagerArguments
from tests.sources import ROOT
from tests.storage.stored import MAP_BYTES


def children(folder: Path) -> list[tuple[str, msgspec.Struct, bytes]]:
    """Module, arguments and a command that each of them has an answer to."""
    kinds = [IdentifierKind("fs_user_id", Confidence.HIGH, 1)]
    path = str(folder / "absent")
    return [
        ("checkpointer", CheckpointerArguments(path, MAP_BYTES, MAP_BYTES, 10), b"fold 1\n"),
        ("scrubber", ScrubberArguments(path, MAP_BYTES, MAP_BYTES, 10, "2"), b"copy\n"),
        ("importscan", ScanArguments(path, MAP_BYTES, 1, path, 1, 2), b""),
        (
            "stager",
            StagerArguments(path, "vip", kinds, 100, 10, "auto", False, None, 100, 10, 10),
            b"fs_user_id\nada\n",
        ),
    ]


@pytest.mark.parametrize("number", range(4), ids=["checkpointer", "scrubber", "importscan", "stager"])
@pytest.mark.parametrize("listens", [True, False])
def test_a_child_whose_server_has_died_ends_without_a_traceback(tmp_path: Path, number: int, listens: bool) -> None:
    module, arguments, command = children(tmp_path)[number]
    line = [sys.executable, "-m", f"segmentd.storage.{module}", msgspec.json.encode(arguments).decode()]
    reading, writing = os.pipe()
    if not listens:
        os.close(reading)
    child = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writing)
    _, complaint = child.communicate(command, timeout=60)
    assert complaint.decode() == ""
    if listens:
        with os.fdopen(reading, "rb") as answers:
            assert answers.read().endswith(b"}\n")
    else:
        assert child.returncode == 1
