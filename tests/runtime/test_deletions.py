"""Deletions that the index has and memory has not: their commit failed, and was on disk all the same."""

from pathlib import Path

from segmentd.runtime.audiences import AudienceTable
from segmentd.runtime.deletions import Deletions
from segmentd.storage.index import AudienceRow
from tests.runtime.world import opened


def test_the_sweep_of_a_deletion_that_memory_never_had_is_no_error() -> None:
    audiences = AudienceTable(10)
    Deletions(audiences).swept(3)
    assert audiences.deletions == {}


async def test_a_new_index_may_hold_a_deletion_that_memory_never_had(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.apply([(b"\0ada", "red", 2), (b"\0ada", "green", 2)])
        await store.delete_audience("green", 8)
        with store._index.writing() as txn:
            store._index.put_audience(txn, 0, AudienceRow("green", deleted_ms=8, swept=True))
            store._index.put_audience(txn, 1, AudienceRow("red", deleted_ms=8))
        store._deletions.look_again(store._index, store.checkpointing)
        assert [(found.audience_id, found.in_index) for found in store._audiences.deletions.values()] == [
            ("green", False)
        ]
        assert 1 in store.checkpointing.unswept
