"""Backups of a store that is written: each has everything that was acknowledged before it began, and is consistent."""

from functools import partial
from unittest import mock

from segmentd.runtime.store import LocalStore
from segmentd.runtime.threads import in_thread
from segmentd.storage.backup import back_up, restore
from segmentd.storage.checkpoint import fold
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder
from tests.simulation.life import MAP_BYTES, Life, Unobserved
from tests.simulation.looks import marks_of
from tests.simulation.promises import MARKS, Promises
from tests.simulation.worlds import BrokenPromiseError


async def take_backup(life: Life, promises: Promises, name: str) -> None:
    """Copy, bring back, and look. Raises BrokenPromiseError."""
    target = life.machine.place / name
    versions = promises.versions()
    acknowledged = {request for request, fate in promises.fates.items() if fate == "acknowledged"}

    def copy() -> None:
        with DataFolder(
            life.folder, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, create=False, lock=False
        ) as folder:
            back_up(folder, target, journal_map_bytes=MAP_BYTES)

    # The copy is one step here; what the server does between the copies of journal and index, it does on the way.
    with mock.patch("segmentd.storage.backup.hit", partial(_fold_and_cut, life)):
        try:
            await in_thread(copy)
        except (StorageError, OSError) as error:
            life.machine.say("no backup", name, type(error).__name__)
            return
    if life.dead:
        return
    life.machine.say("backup", name)
    armed, life.machine.chance.armed = life.machine.chance.armed, False
    restored = target.with_name(f"{name}-restored")
    report = restore(target, restored, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)
    if report.differences:
        raise BrokenPromiseError(f"{name}: segmentd check: {report.differences}")
    with DataFolder(restored, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES) as folder:
        _compare(life, promises, folder, versions, acknowledged)
    life.machine.chance.armed = armed


def _fold_and_cut(life: Life, _point: str) -> None:
    if not life.machine.chance.one_in(2):
        return
    store = life.store
    try:
        folded = fold(store._journal, store._index, changes_max=1000, seq_max=store.publication.record)
        store.checkpointing.folded_seq = max(folded.seq, store.checkpointing.folded_seq)
        store._journal.cut(store.checkpointing.cut_to)
    except StorageError:
        # A fault struck; the server tries again.
        return


def _compare(
    life: Life, promises: Promises, folder: DataFolder, versions: dict[tuple[str, str], int], acknowledged: set[str]
) -> None:
    settings = life.settings
    copy = LocalStore(
        folder, storage=settings.storage, runtime=settings.runtime, limits=settings.limits, observer=Unobserved()
    )
    copy.recover()
    for (who, audience), version in versions.items():
        cell = promises.cells[who, audience]
        v = copy.lookup(life.key(who), [audience])[0]
        if cell.version == version and cell.is_settled:
            cell.seen(lambda state, v=v: state.v == v, f"{v} in a backup")  # type: ignore[misc]
    for request in acknowledged:
        if any(copy.lookup(life.key(mark), [MARKS])[0] is None for mark in marks_of(request)):
            raise BrokenPromiseError(f"{request} was acknowledged before a backup that has not got it")
    copy.close_environments()
