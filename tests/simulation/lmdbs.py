"""LMDB on the simulated disk: the real thing, whose transactions may fail, or fail to say that they worked.

In place of `lmdb.open`. Parent and children are one process here, and LMDB allows one handle a process, so whoever
opens an environment that is open gets the same one.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from tests.simulation.chance import Chance
from tests.simulation.disk import LMDB_FILE, Disk

_open_for_real = lmdb.open
_NO_SPACE = os.strerror(errno.ENOSPC)
_NOT_WRITTEN = {
    "journal": ("commit_disk_full", "commit_map_full", "commit_lost"),
    "index": ("fold_disk_full", "fold_lost"),
}
_WRITTEN = {"journal": ("commit_unknown",), "index": ("fold_unknown",)}


class Environments:
    """All environments that are open."""

    def __init__(self, disk: Disk, chance: Chance) -> None:
        self.disk = disk
        self.chance = chance
        self._opened: dict[str, tuple[lmdb.Environment, list[object]]] = {}

    def open(self, path: str, *, readonly: bool = False, **options: Any) -> "SimulatedEnvironment":
        """As `lmdb.open`."""
        where = os.path.realpath(path)
        if where not in self._opened:
            if readonly and not os.path.exists(os.path.join(where, LMDB_FILE)):
                raise lmdb.Error(f"{path}: {os.strerror(errno.ENOENT)}")
            options["create"] = True
            # What is synced is the business of the simulated disk.
            self._opened[where] = _open_for_real(path, **options, sync=False, metasync=False), []
        environment, users = self._opened[where]
        user = SimulatedEnvironment(self, environment, where)
        users.append(user)
        return user

    def closed(self, user: object, where: str) -> None:
        """One user less."""
        environment, users = self._opened.get(where, (None, []))
        if user in users:
            users.remove(user)
            if environment is not None and not users:
                environment.close()
                del self._opened[where]

    def close_all(self) -> None:
        """The process is gone."""
        for environment, _ in self._opened.values():
            environment.close()
        self._opened.clear()


class SimulatedEnvironment:
    """What one user sees of an environment; everything that is not here is LMDB's."""

    def __init__(self, environments: Environments, environment: lmdb.Environment, where: str) -> None:
        self._all = environments
        self._environment = environment
        self._where = where
        self._kind = Path(where).name.partition("-")[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, *, write: bool = False) -> Any:
        """A transaction, to be used in a `with`."""
        return self._writing() if write else self._environment.begin()

    def open_db(self, key: bytes, *, create: bool = True) -> Any:
        """A handle of a database; making one is a transaction."""
        before = self._last_transaction()
        handle = self._environment.open_db(key, create=create)
        self._note_sync(before)
        return handle

    def copy(self, path: str, *, compact: bool) -> None:
        """Copy, without a sync, as LMDB does."""
        if self._all.chance.strikes("fold_disk_full"):
            raise lmdb.Error(f"mdb_env_copy2: {_NO_SPACE}")
        self._environment.copy(path, compact=compact)
        self._all.disk.step()

    def close(self) -> None:
        """For this user."""
        self._all.closed(self, self._where)

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        chance, disk = self._all.chance, self._all.disk
        before = self._last_transaction()
        with self._environment.begin(write=True) as txn:
            yield txn
            disk.step()
            if fault := chance.first(_NOT_WRITTEN[self._kind]):
                raise _error(fault)
        self._note_sync(before)
        disk.step()
        if fault := chance.first(_WRITTEN[self._kind]):
            raise _error(fault)

    def _last_transaction(self) -> int:
        return int(self._environment.info()["last_txnid"])

    def _note_sync(self, before: int) -> None:
        """A transaction that changed nothing syncs nothing."""
        if self._last_transaction() > before:
            self._all.disk.lmdb_has_synced(Path(self._where, LMDB_FILE))


def _error(fault: str) -> lmdb.Error:
    if fault.endswith("map_full"):
        return lmdb.MapFullError("mdb_put: MDB_MAP_FULL")
    if fault.endswith("disk_full"):
        return lmdb.Error(f"mdb_txn_commit: {_NO_SPACE}")
    return lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}")
