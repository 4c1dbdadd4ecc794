"""After a scrub the bytes of what was forgotten or deleted are in no file, and everything else is as it was."""

import errno
from pathlib import Path

import pytest
import trio

from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.scrubbing import ScrubFailedError
from segmentd.storage import folder as folder_module
from segmentd.storage.check import check
from segmentd.storage.errors import StoreFailureError
from segmentd.storage.folder import DataFolder
from segmentd.storage.index import Index
from segmentd.storage.journal import Journal
from tests.runtime.world import HandDrivenStore, change, data_folder, opened, seen

NAME = b"somebody-who-wants-to-be-forgotten@example.com"
GONER = b"\1" + NAME
OTHERS = [b"\0user-%05d" % number for number in range(2_000)]


def files_with(folder: Path, needle: bytes) -> list[str]:
    """Every file below `folder` that has `needle` somewhere in its bytes."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


async def filled(store: HandDrivenStore) -> None:
    await store.apply([change(key, "red", 5, True) for key in [*OTHERS, GONER]])
    await store.apply([change(GONER, "green", 6, False)])


async def test_the_bytes_of_a_forgotten_identifier_are_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        await store.checkpointing.barrier()
        assert files_with(path, NAME), "the test shows nothing: it never was on disk"
        await store.forget([GONER], 10)
        await store.scrub()
        assert files_with(path, NAME) == []
        assert set(seen(store.held())) == {(key, "red") for key in OTHERS}
        await store.apply([change(OTHERS[0], "green", 7, True), change(GONER, "red", 9, True)])
        await store.checkpointing.barrier()
        assert store.size("green") == 1
        assert files_with(path, NAME) == []
        nursery.cancel_scope.cancel()
    with data_folder(path) as folder:
        assert check(folder).differences == []
    async with opened(path) as store:
        assert store.lookup(OTHERS[0], ["red", "green"]) == [10, 14]
        assert store.memberships(GONER) == {}


async def test_writes_go_on_during_scrubs_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "data"
    written: list[bytes] = []

    async def write(store: HandDrivenStore) -> None:
        while True:
            key = b"\0late-%06d" % len(written)
            await store.apply([change(key, "red", 5, True)])
            written.append(key)

    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        nursery.start_soon(write, store)
        for _ in range(3):
            before = len(written)
            await store.scrub()
            assert len(written) > before
        nursery.cancel_scope.cancel()
    async with opened(path) as store:
        assert {(key, "red") for key in written} <= set(seen(store.held()))
        assert store.recounted()
    with data_folder(path) as folder:
        assert check(folder).differences == []


async def test_a_deletion_goes_on_through_a_scrub(tmp_path: Path) -> None:
    path = tmp_path / "data"
    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        deletion = await store.delete_audience("red", 8)
        assert deletion is not None
        await store.scrub()
        with trio.fail_after(30):
            while not deletion.is_complete:  # noqa: ASYNC110  # nobody is told when it is
                await trio.sleep(0.01)
        assert store.size("red") == 0
        assert store.memberships(GONER) == {"green": 13}
        nursery.cancel_scope.cancel()
    with data_folder(path) as folder:
        report = check(folder)
        assert (report.differences, report.members, report.audiences) == ([], 0, 1)


def no_handles(*_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


FAILURES_OF_A_SWAP = [(folder_module, "sync_folder"), (DataFolder, "reopen"), (Journal, "move_to"), (Index, "move_to")]


@pytest.mark.parametrize(("owner", "name"), FAILURES_OF_A_SWAP)
async def test_a_swap_that_fails_halfway_ends_writing_and_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    path = tmp_path / "data"
    written: list[bytes] = []

    async def write(store: HandDrivenStore) -> None:
        while True:
            key = b"\0late-%06d" % len(written)
            await store.apply([change(key, "red", 5, True)])
            written.append(key)

    async def write_until_refused(store: HandDrivenStore) -> None:
        # Of the writes that wait for the swap, those that have left the queue already must be refused too.
        with pytest.raises(StoreUnavailable):
            await write(store)

    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        async with trio.open_nursery() as writing:
            writing.start_soon(write_until_refused, store)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, no_handles)
                with pytest.raises(StoreFailureError):
                    await store.scrub()
        assert "restart" in str(store.failure())
        with pytest.raises(StoreUnavailable):
            await store.apply([change(GONER, "red", 9, True)])
        with pytest.raises(ScrubFailedError, match="writing has stopped"):
            await store.scrub()
        nursery.cancel_scope.cancel()
    async with opened(path) as store:
        assert {(key, "red") for key in [*OTHERS, GONER, *written]} <= set(seen(store.held()))
    with data_folder(path) as folder:
        assert check(folder).differences == []


async def test_a_scrub_that_cannot_be_prepared_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        with monkeypatch.context() as patch:
            patch.setattr(DataFolder, "prepare_generation", no_handles)
            with pytest.raises(OSError, match="Too many open files"):
                await store.scrub()
        assert store.failure() is None
        await store.scrub()
        nursery.cancel_scope.cancel()
    assert len(list(path.glob("index*"))) == len(list(path.glob("journal*"))) == 1


async def test_a_new_index_that_lacks_a_committed_record_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    async with opened(path) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.checkpointing.run)
        await filled(store)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "last_seq", property(lambda journal: journal._next_seq))
            patch.setattr(store.checkpointing, "barrier", trio.lowlevel.checkpoint)
            with pytest.raises(ScrubFailedError, match="lacks record 3"):
                await store.scrub()
        assert store.failure() is None
        nursery.cancel_scope.cancel()
    async with opened(path) as store:
        assert store.lookup(OTHERS[0], ["red"]) == [10]
