"""Power cuts for a real server: what is on its disk then is what it had synced, and by chance some of the rest.

Owns the shim (`powercut.c`, compiled when a test wants it) and the making of the disk after the cut. Knows nothing of
segmentd: a file has its content as of its last sync, a folder the names as of its own, and nothing else is certain.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.serverprocess import ServerProcess

SOURCE = Path(__file__).with_name("powercut.c")
SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""
SYNC_MICROSECONDS = 10_000
"""How long one takes at least: so most cuts come between a write and the end of its sync."""
KEY_BYTES = 64
END_SECONDS_MAX = 60.0

_SYNC_ALL = """
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for path in [folder, *(os.path.join(folder, name) for name in names)]:
        opened = os.open(path, os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)
"""


class Lost(NamedTuple):
    """What a power cut took, beside what it left by chance."""

    names: int
    """Of files and folders that were there."""
    bytes: int
    """Of files whose names stayed."""


class Shim:
    """The compiled shim."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError where there is no compiler."""
        self.path = folder / "powercut.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wno-format-truncation", "-o", self.path, SOURCE, "-ldl"],
            check=True,
        )
        self._library = ctypes.CDLL(str(self.path))

    def key(self, path: Path) -> str:
        """The identity under which the shim knows a file."""
        key = ctypes.create_string_buffer(KEY_BYTES)
        assert self._library.powercut_key(str(path).encode(), key), path
        return key.value.decode()


class Disk:
    """One folder from its beginning, when everything in it is synced, to a power cut."""

    def __init__(self, shim: Shim, root: Path, shadow: Path) -> None:
        self.root = root
        self._shim = shim
        self._shadow = shadow
        shadow.mkdir()
        everything = [sys.executable, "-c", _SYNC_ALL, str(root)]
        subprocess.run(everything, env={**os.environ, **self.environ(), "POWERCUT_SYNC_MICROSECONDS": "0"}, check=True)

    def environ(self, ignored: str = "") -> dict[str, str]:
        """For a program whose syncs count. ignored: those of paths that contain this do not."""
        return {
            "LD_PRELOAD": str(self._shim.path),
            "POWERCUT_ROOT": str(self.root),
            "POWERCUT_SHADOW": str(self._shadow),
            "POWERCUT_SYNC_MICROSECONDS": str(SYNC_MICROSECONDS),
            **({"POWERCUT_IGNORE": ignored} if ignored else {}),
        }

    def after_cut(self, target: Path, chance: Random | None) -> Lost:
        """Make `target` what the disk has after a power cut now; nobody may be writing any more.

        chance: some of what was not synced is there all the same, names and sectors; None: nothing of it.
        """
        now = {self._shim.key(path): path for path in [self.root, *self.root.rglob("*")]}
        lost_names = lost_bytes = 0
        folders = [(self._shim.key(self.root), target)]
        while folders:
            key, made = folders.pop()
            made.mkdir(mode=0o700)
            kept, present = self._names(key), _names_now(now.get(key), self._shim)
            lost_names += len(present.keys() - kept.keys())
            # A file system writes changes of names in their order, so a folder is old or new.
            names = present if chance is not None and chance.random() < 0.5 else kept
            for name, (is_folder, of) in sorted(names.items()):
                if is_folder:
                    folders.append((of, made / name))
                else:
                    lost_bytes += self._make(of, now.get(of), made / name, chance)
        return Lost(lost_names, lost_bytes)

    def _names(self, key: str) -> dict[str, tuple[bool, str]]:
        try:
            lines = (self._shadow / f"{key}.names").read_text().splitlines()
        except FileNotFoundError:
            return {}
        return {name: (kind == "d", of) for kind, of, name in (line.split(" ", 2) for line in lines)}

    def _make(self, key: str, path: Path | None, made: Path, chance: Random | None) -> int:
        """Write one file; returns how many bytes that are there now are not there then."""
        try:
            content = bytearray((self._shadow / key).read_bytes())
        except FileNotFoundError:
            content = bytearray()
        present = path.read_bytes() if path is not None else bytes(content)
        wanted = len(present) if chance is not None and chance.random() < 0.5 else len(content)
        content = content[:wanted].ljust(wanted, b"\0")
        lost = max(0, len(present) - wanted)
        share = chance.random() if chance is not None else 0.0
        for start in range(0, min(wanted, len(present)), SECTOR_BYTES):
            sector = present[start : min(start + SECTOR_BYTES, wanted)]
            if sector != content[start : start + len(sector)]:
                if chance is not None and chance.random() < share:
                    content[start : start + len(sector)] = sector
                else:
                    lost += len(sector)
        made.write_bytes(content)
        made.chmod(0o600)
        return lost


def cut_power(server: ServerProcess) -> None:
    """Kill the server and all its children at the same moment, as far as one process can do that to others."""
    family = list(_stopped(server.pid))
    for pid in family[1:]:
        os.kill(pid, signal.SIGKILL)
    server.kill()
    deadline = time.monotonic() + END_SECONDS_MAX
    while any(_is_running(pid) for pid in family[1:]):
        assert time.monotonic() < deadline, "a child of the server survives SIGKILL"
        time.sleep(0.005)


def _names_now(folder: Path | None, shim: Shim) -> Mapping[str, tuple[bool, str]]:
    if folder is None:
        return {}
    return {path.name: (path.is_dir(), shim.key(path)) for path in folder.iterdir()}


def _stopped(pid: int) -> Iterator[int]:
    """Stop a process and then its children, so that nobody starts another one meanwhile."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return
    yield pid
    for child in _children(pid):
        yield from _stopped(child)


def _children(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == pid]


def _parent(entry: Path) -> int:
    """0 for one that has ended."""
    fields = _stat(entry)
    return int(fields[1]) if fields else 0


def _is_running(pid: int) -> bool:
    fields = _stat(Path("/proc") / str(pid))
    return bool(fields) and fields[0] not in {"Z", "X"}


def _stat(entry: Path) -> list[str]:
    """The fields behind the name of the program: state, parent, ...; empty for one that has ended."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
