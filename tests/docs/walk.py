"""Walks through a document as its reader would: writes its files, runs its commands, compares the answers.

The reader's folder has `segmentd.toml`, whose server runs at `ADDRESS` with the keys `dev-public` and `dev-private`.
What a block exports, the next one has. Times and ids differ from run to run: of them the form is compared.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from segmentd.settings import SettingsError, load
from tests.cluster.cluster import Cluster
from tests.docs.documents import Block, blocks
from tests.serverprocess import ServerProcess, key_settings
from tests.sources import ROOT

# Where the documents' server listens, and a second one that they start themselves.
ADDRESS: Final = "127.0.0.1:8080"
SECOND_ADDRESS: Final = "127.0.0.1:9090"

# Where the documents' cluster has its servers: the first and those behind it.
CLUSTER_PORT_FIRST: Final = 7_000
CLUSTER_ADDRESS: Final = f"127.0.0.1:{CLUSTER_PORT_FIRST}"

COMMAND_SECONDS_MAX: Final = 120.0

# Below those that the kernel hands out by itself (net.ipv4.ip_local_port_range): a connection of somebody else, or one
# to the very port before anybody listens there, would take it between the choice and the command that uses it.
_PORTS: Final = range(20_000, 32_768)

_FORMS: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r'"(id|request_id)": ?"[\w-]{8,}"'), '"id":"<id>"'),
)
# What a block leaves to the next: its folder stays, its exported variables are written down.
_FRAME: Final = "set -euo pipefail\n[ -f .exported ] && . ./.exported\ntrap 'export -p > .exported' EXIT\n"


def docs_keys() -> dict[str, dict[str, str]]:
    """Settings of the development keys."""
    return {f"keys.{key}": key_settings(key, key.removeprefix("dev-")) for key in ("dev-public", "dev-private")}


class Walk:
    """One reader with a server and a folder; use it as a context manager, which ends what the commands left running."""

    def __init__(self, folder: Path, document: Path) -> None:
        self._document = document
        self._folder = folder
        self._server = ServerProcess(folder, docs_keys() | {"storage": {"path": "data"}})
        self._addresses = {SECOND_ADDRESS: f"127.0.0.1:{free_port()}"}
        self._groups: list[int] = []
        self._stack = ExitStack()
        self._output = ""
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTD_")}
        (folder / "bin").mkdir()
        _program(folder / "bin" / "segmentd", f'exec "{sys.executable}" -m segmentd "$@"')
        _program(folder / "bin" / "python", f'exec "{sys.executable}" "$@"')
        self._environ["PATH"] = f"{folder / 'bin'}:{self._environ['PATH']}"
        self._environ["PYTHONPATH"] = str(ROOT)
        # Nobody outside is called: what an SDK would report to its maker goes nowhere.
        self._environ |= {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if error is not None:
            print(self._server.log_text())
        self._server.close()
        self._stack.close()

    def through(self, text: str) -> None:
        """Do everything that the text says, in order; with a server, and with a cluster, if it speaks of one.

        Raises AssertionError with the line that does not hold.
        """
        if ADDRESS in text or self._server.config.name in text:
            self._server.start()
            self._addresses[ADDRESS] = self._server.url.removeprefix("http://")
        if CLUSTER_ADDRESS in text:
            cluster = self._stack.enter_context(Cluster(self._folder / "cluster"))
            shown = (f"127.0.0.1:{CLUSTER_PORT_FIRST + number}" for number in range(len(cluster.addresses)))
            self._addresses |= dict(zip(shown, cluster.addresses, strict=True))
        for block in blocks(text):
            if not block.reason and not _is_for_make(block):
                try:
                    self._take(block)
                except (AssertionError, msgspec.DecodeError, SettingsError) as problem:
                    raise AssertionError(f"{self._document.name}, block at line {block.line}: {problem}") from problem

    def _take(self, block: Block) -> None:
        if block.language == "sh":
            self._run(block)
        elif block.argument:
            (self._folder / block.argument).write_text(self._ours(block.text), encoding="utf-8")
        elif block.language == "json":
            printed, answered = _without_chance(block.text), _without_chance(self._output)
            assert _json_lines(answered) == _json_lines(printed), self._output
        elif block.language == "text":
            assert _pattern(block.text).fullmatch(self._output.rstrip() + "\n"), self._output
        elif block.language == "toml":
            (self._folder / "part.toml").write_text(block.text, encoding="utf-8")
            load(self._folder / "part.toml", {})
        else:
            raise AssertionError(f"a block of {block.language!r} is not run and does not say why")

    def _run(self, block: Block) -> None:
        expected = int(block.argument.removeprefix("exit=") or 0)
        child = subprocess.Popen(
            ["bash", "-c", _FRAME + self._ours(block.text)],
            cwd=self._folder, env=self._environ, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._groups.append(child.pid)
        output, problems = child.communicate(timeout=COMMAND_SECONDS_MAX)
        assert child.returncode == expected, f"{block.text}\nended with {child.returncode}: {output}{problems}"
        # What was asked for is on stdout; a command that fails says why on stderr.
        self._output = output or problems
        for shown, ours in self._addresses.items():
            self._output = self._output.replace(ours, shown)

    def _ours(self, text: str) -> str:
        """The text with the addresses of this run."""
        for shown, ours in self._addresses.items():
            text = text.replace(shown, ours)
        return text


def _is_for_make(block: Block) -> bool:
    """Whether a block is only about make's targets; those have a test of their own."""
    return block.language == "sh" and all(line.startswith("make ") for line in block.text.splitlines())


def _without_chance(text: str) -> str:
    for form, name in _FORMS:
        text = form.sub(name, text)
    return text


def _json_lines(text: str) -> list[object]:
    """One JSON document over several lines, or one on each line."""
    try:
        return [msgspec.json.decode(text)]
    except msgspec.DecodeError:
        return [msgspec.json.decode(line) for line in text.splitlines() if line]


def _pattern(printed: str) -> re.Pattern[str]:
    """What the answer must be; `...` stands for anything within a line, and alone on a line for any lines."""
    lines = [
        r"(?:.*\n)*" if line == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + " *\n"
        for line in printed.rstrip().splitlines()
    ]
    return re.compile("".join(lines))


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def free_port() -> int:
    """A port of the loopback address that nobody has at this moment, and that the kernel gives to nobody unasked."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port is free among a hundred of {_PORTS}")
