"""The store with its real checkpointer: the journal is folded and cut, and a child that is killed costs nothing."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from segmentd.domain.segments import SegmentDefinition
from segmentd.runtime import checkpointing as module
from segmentd.runtime.checkpointing import CheckpointerProcess
from segmentd.storage.checkpointer import CheckpointerArguments
from tests.runtime.staged import staged

ADA, BOB = b"\0ada", b"\0bob"


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[trio.Process]:
    """The checkpointers that were started, in order."""
    started: list[trio.Process] = []
    start = module.checkpointer_process

    @asynccontextmanager
    async def noted(arguments: CheckpointerArguments) -> AsyncIterator[CheckpointerProcess]:
        opened: AbstractAsyncContextManager[CheckpointerProcess] = start(arguments)
        async with opened as process:
            started.append(process._child._process)
            yield process

    monkeypatch.setattr(module, "checkpointer_process", noted)
    monkeypatch.setattr(module, "_RESTART_SECONDS_FIRST", 0.01)
    return started


async def test_after_a_barrier_the_index_holds_everything_and_the_journal_is_cut(tmp_path: Path) -> None:
    async with staged(tmp_path, checkpointer=True) as stage:
        for number in range(5):
            await stage.store.apply([(ADA, "a", number), (BOB, "b", number)])
        await stage.catalog.put("s", SegmentDefinition("a"), None)
        assert await stage.store.checkpointing.barrier() == 6
        assert stage.store.stats().unfolded_records == 0
        with stage.store._index.reading() as txn:
            assert stage.store._index.folded_seq(txn) == 6
            assert len(list(stage.store._index.memberships(txn))) == 2
        await stage.store.apply([(ADA, "a", 10)])
        assert stage.store.stats().journal_records == 1
        assert await stage.store.checkpointing.barrier() == 7


async def test_a_deep_journal_is_folded_without_anybody_asking(tmp_path: Path) -> None:
    async with staged(tmp_path, checkpointer=True, storage={"checkpoint_journal_bytes": 100}) as stage:
        while not stage.store.checkpointing.folded_seq:
            await stage.store.apply([(ADA, "a", 2)])
        assert stage.observer.checkpoints >= 1


async def test_a_killed_checkpointer_is_replaced_and_nothing_is_lost(
    tmp_path: Path, children: list[trio.Process]
) -> None:
    async with staged(tmp_path, checkpointer=True) as stage:
        for number in range(3):
            await stage.store.apply([(ADA, "a", number)])
            assert await stage.store.checkpointing.barrier() == 2 * number + 1
            children[-1].kill()
            await stage.store.apply([(BOB, "a", number)])
            assert await stage.store.checkpointing.barrier() == 2 * number + 2
        assert len(children) == 4
        assert stage.observer.checkpoints_failed == 3
        assert stage.store.seen() == {(ADA, "a"): 2, (BOB, "a"): 2}


async def test_the_checkpointer_ends_with_the_store(tmp_path: Path, children: list[trio.Process]) -> None:
    async with staged(tmp_path, checkpointer=True) as stage:
        await stage.store.apply([(ADA, "a", 2)])
        await stage.store.checkpointing.barrier()
    assert [child.returncode for child in children] == [0]


async def test_a_full_index_is_reported_and_acknowledged_writes_go_on(tmp_path: Path) -> None:
    small = {"index_map_bytes": 256 * 1024, "checkpoint_journal_bytes": 1}
    async with staged(tmp_path, checkpointer=True, storage=small) as stage:
        await stage.store.apply([(b"\0%04d" % number + b"x" * 200, "a", 2) for number in range(2_000)])
        while not stage.observer.checkpoints_failed:
            await stage.store.apply([(ADA, "a", 2)])
        assert stage.store.size("a") == 2_001
        assert stage.store.checkpointing.folded_seq == 0
        assert stage.store.failure() is None
