"""After a scrub the bytes of what was forgotten or deleted are in no file, and everything else is as it was."""

from pathlib import Path

import trio

from segmentd.storage.check import check
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
