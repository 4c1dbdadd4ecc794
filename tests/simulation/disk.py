"""A disk that remembers what was synced: real files and real LMDB, and after a crash only what a crash leaves.

Files are written where the program wants them. Each `os.fsync` notes what the file held, or which names the folder had.
A crash makes a new folder: of a file the content of its last sync, of a folder the names of its last sync; or, by
chance, what came after it. LMDB syncs by itself when a transaction ends, so its file counts as synced from the first
transaction that changed it; a copy that LMDB makes does not.

What this does not show: pages torn within one LMDB transaction. A transaction is there or not, which is what LMDB's
copy-on-write promises.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.simulation.chance import Chance

LMDB_FILE: Final = "data.mdb"
# Locks say nothing after a crash; and closing a second handle on LMDB's lock file would give its locks back.
_LOCKS: Final = {"lock", "lock.mdb"}


class Name(NamedTuple):
    """What a name in a folder means."""

    inode: int
    is_folder: bool


class Disk:
    """One data folder at a time: `begin`, any number of syncs, `crash` or `end`."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, Name]] = {}
        # An open handle keeps an inode from being used again, and the content of a removed file readable.
        self._handles: dict[int, int] = {}
        self.lmdb_synced: set[int] = set()
        self.crash_after: int | None = None
        """So many operations of the disk until it crashes; None: not by itself."""
        self.on_crash: Callable[[], None] = lambda: None
        self.folder = Path()
        self._root = 0

    def begin(self, folder: Path) -> None:
        """Go on in this folder, all of which counts as synced."""
        self.end()
        self.folder = folder
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._root = self._hold(handle)
        self._take_as_synced(handle)

    def end(self) -> None:
        """Forget everything about the folder."""
        for handle in self._handles.values():
            os.close(handle)
        for held in (self._files, self._folders, self._handles, self.lmdb_synced):
            held.clear()
        self.crash_after = None

    def step(self) -> None:
        """An operation is about to begin or has just ended: a moment to crash."""
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                self.crash_after = None
                self.on_crash()

    def fsync(self, handle: int) -> None:
        """In the place of `os.fsync`."""
        self.step()
        if self._chance.strikes("file_disk_full"):
            raise OSError(28, "No space left on device")
        status = os.fstat(handle)
        if not Path(os.readlink(f"/proc/self/fd/{handle}")).is_relative_to(self.folder):
            # Names on the way to the data folder, and backups: no crash looks at them, and on another file system the
            # same inode number means another file.
            pass
        elif stat.S_ISDIR(status.st_mode):
            self._folders[status.st_ino] = self._names(handle)
        else:
            again = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
            inode = self._hold(again)
            if os.path.basename(os.readlink(f"/proc/self/fd/{handle}")) == LMDB_FILE:
                self.lmdb_synced.add(inode)
            else:
                self._files[inode] = _content(self._handles[inode])
        self.step()

    def lmdb_has_synced(self, file: Path) -> None:
        """A transaction of LMDB has changed this file and is on disk."""
        self.lmdb_synced.add(self._hold(os.open(file, os.O_RDONLY)))

    def image(self, target: Path, crash: str) -> None:
        """What a crash now would leave, in the new folder `target`. crash: the name of the fault."""
        share = {"crash_killed": 1.0, "crash_power": 0.0, "crash_torn": self._chance.random.random()}[crash]
        self._lay_folder(self._handles[self._root], target, lambda: self._chance.random.random() < share)

    def _lay_folder(self, handle: int, target: Path, stays: Callable[[], bool]) -> None:
        target.mkdir(mode=0o700)
        synced, present = self._folders.get(os.fstat(handle).st_ino, {}), self._names(handle)
        for name in sorted(synced.keys() | present.keys()):
            old, new = synced.get(name), present.get(name)
            found = new if old == new or stays() else old
            if found is None:
                continue
            held = self._handles[found.inode]
            if found.is_folder:
                self._lay_folder(held, target / name, stays)
            else:
                (target / name).write_bytes(self._left(name, found.inode, held, stays))

    def _left(self, name: str, inode: int, handle: int, stays: Callable[[], bool]) -> bytes:
        """What a crash leaves of a file."""
        written = _content(handle)
        if name == LMDB_FILE:
            return written if inode in self.lmdb_synced or stays() else b""
        synced = self._files.get(inode)
        if synced == written or stays():
            return written
        if synced is not None:
            return synced
        return written[: self._chance.random.randrange(len(written) + 1)]

    def _names(self, handle: int) -> dict[str, Name]:
        """The names of a folder, each with a handle held on what it means."""
        names: dict[str, Name] = {}
        for name in os.listdir(handle):
            if name in _LOCKS:
                continue
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
            names[name] = Name(status.st_ino, stat.S_ISDIR(status.st_mode))
            if status.st_ino not in self._handles:
                self._hold(os.open(name, os.O_RDONLY, dir_fd=handle))
        return names

    def _hold(self, handle: int) -> int:
        """Keep this handle open; returns its inode."""
        inode = os.fstat(handle).st_ino
        if inode in self._handles:
            os.close(handle)
        else:
            self._handles[inode] = handle
        return inode

    def _take_as_synced(self, handle: int) -> None:
        names = self._names(handle)
        self._folders[os.fstat(handle).st_ino] = names
        for name, found in names.items():
            held = self._handles[found.inode]
            if found.is_folder:
                self._take_as_synced(held)
            elif name == LMDB_FILE:
                self.lmdb_synced.add(found.inode)
            else:
                self._files[found.inode] = _content(held)


def _content(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)
