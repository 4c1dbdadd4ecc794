"""`--help` is the manual: every command and option explains itself, and shells complete them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from segmentd.cli import commands
from tests.sources import ROOT

UNITS = re.compile(
    r"\b(seconds?|milliseconds?|minutes?|bytes?|events?|requests?|lines?|files?|share|processes|attempts|tries|connections?)\b",
    re.IGNORECASE,
)


def tree(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of every command below a group, the groups themselves too."""
    for name, command in sorted(group.commands.items()):
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from tree(command, *path, name)


COMMANDS = dict(tree(commands))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_each_of_its_options_explain_themselves(path: str) -> None:
    command = COMMANDS[path]
    assert command.help, path
    first = command.help.splitlines()[0]
    assert first[0].isupper()
    assert first.endswith(".")
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        assert option.help, f"{path} {option.opts[0]}"
        assert option.help[0].isupper(), option.help
        assert option.help.endswith("."), option.help
        if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
            said = " ".join([*option.opts, option.metavar or "", option.help]).replace("-", " ")
            assert UNITS.search(said), f"{path} {option.opts[0]} has no unit"


@pytest.mark.parametrize("path", [path for path in COMMANDS if not isinstance(COMMANDS[path], click.Group)])
def test_the_help_of_a_command_has_an_example_and_fits_a_terminal(path: str) -> None:
    result = CliRunner().invoke(commands, [*path.split(), "--help"], prog_name="segmentd", terminal_width=100)
    assert result.exit_code == 0
    assert [line for line in result.output.splitlines() if len(line) > 100] == []
    if COMMANDS[path].params:
        assert re.search(rf"^ +(\S+ \| |\S+=\$\()?segmentd {path}\b", result.output, re.MULTILINE), "no example"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    result = CliRunner().invoke(commands, ["completion", shell], prog_name="segmentd")
    assert result.exit_code == 0
    assert f"_SEGMENTD_COMPLETE={shell}_complete" in result.output
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=result.output, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


# What bash does when somebody types a line and presses Tab; the variables are bash's own.
PRESS_TAB = """
set -e
source <(segmentd completion bash)
COMP_WORDS=({words})
COMP_CWORD={last}
_segmentd_completion segmentd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["segmentd", "ke"], ["keys"]),
        (["segmentd", "keys", "re"], ["revoke"]),
        (["segmentd", "export", "--form"], ["--format"]),
        (["segmentd", "completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes_commands_options_and_choices(words: list[str], offered: list[str], tmp_path: Path) -> None:
    program = tmp_path / "segmentd"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m segmentd "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = PRESS_TAB.format(words=" ".join(f"'{word}'" for word in words), last=len(words) - 1)
    result = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.split()) == (0, offered), result.stderr
