"""The catalog: one write after the other, durable before it is seen, and revisions that nothing confuses."""

from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from segmentd.domain.refusals import (
    LimitReached,
    Overloaded,
    RevisionMismatch,
    SegmentNotFound,
    ShuttingDown,
    StoreUnavailable,
)
from segmentd.domain.segments import SegmentDefinition
from segmentd.runtime import catalog as catalog_module
from segmentd.storage.errors import StoreFullError
from tests.runtime.staged import staged

FIRST, SECOND = SegmentDefinition("a", "first"), SegmentDefinition("a", "second")


async def test_put_creates_updates_and_leaves_alone_what_is_the_same(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        made, created = await stage.catalog.put("s", FIRST, None)
        assert (made.segment_id, made.revision, made.definition, created) == ("s", 1, FIRST, True)
        assert await stage.catalog.put("s", FIRST, 1) == (made, False)
        assert len(stage.store.records) == 1
        changed, created = await stage.catalog.put("s", SECOND, 1)
        assert (changed.revision, changed.definition, created) == (2, SECOND, False)
        assert stage.catalog.segments["s"] == changed


async def test_delete_returns_what_remains_and_the_revision_goes_on(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for segment_id in ("b", "a", "c"):
            await stage.catalog.put(segment_id, FIRST, None)
        assert stage.catalog.segment_ids() == ["a", "b", "c"]
        assert await stage.catalog.delete("b", 1) == ["a", "c"]
        with pytest.raises(SegmentNotFound):
            await stage.catalog.delete("b", None)
        again, created = await stage.catalog.put("b", FIRST, None)
        assert (again.revision, created) == (2, True)


async def test_of_concurrent_puts_with_the_same_if_match_exactly_one_wins(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.catalog.put("s", FIRST, None)
        outcomes = [stage.put("s", f"audience_{number}", if_match=1) for number in range(10)]
        for outcome in outcomes:
            await outcome.done.wait()
        winners = [outcome for outcome in outcomes if outcome.error is None]
        assert len(winners) == 1
        assert winners[0].value == (stage.catalog.segments["s"], False)
        assert stage.catalog.segments["s"].revision == 2
        lost = [outcome.error for outcome in outcomes if outcome.error is not None]
        assert all(isinstance(error, RevisionMismatch) and error.actual == 2 for error in lost)


async def test_concurrent_puts_without_if_match_all_count_and_one_creates(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        outcomes = [stage.put("s", f"audience_{number}") for number in range(10)]
        results = [await outcome.get() for outcome in outcomes]
        assert sorted(segment.revision for segment, _ in results) == list(range(1, 11))
        assert [segment.revision for segment, created in results if created] == [1]


async def test_a_segment_is_not_seen_before_it_is_on_disk(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        outcome = stage.put("s", "a")
        await wait_all_tasks_blocked()
        assert dict(stage.catalog.segments) == {}
        stage.store.release()
        segment, _ = await outcome.get()
        assert stage.catalog.segments["s"] == segment


async def test_a_put_whose_client_went_away_is_done_all_the_same(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        gone, waiting = stage.put("s", "a"), stage.put("t", "b")
        await wait_all_tasks_blocked()
        for outcome in (gone, waiting):
            outcome.scope.cancel()
            await outcome.done.wait()
        later = stage.put("s", "c", if_match=1)
        await wait_all_tasks_blocked()
        stage.store.release()
        segment, created = await later.get()
        assert (segment.revision, created) == (2, False)
        assert stage.catalog.segment_ids() == ["s", "t"]


async def test_a_refused_write_changes_nothing_and_uses_up_no_revision(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.errors.append(StoreFullError("full"))
        with pytest.raises(StoreUnavailable):
            await stage.catalog.put("s", FIRST, None)
        assert dict(stage.catalog.segments) == {}
        segment, created = await stage.catalog.put("s", FIRST, None)
        assert (segment.revision, created) == (1, True)
        stage.store.errors.append(StoreFullError("full"))
        with pytest.raises(StoreUnavailable):
            await stage.catalog.delete("s", None)
        assert stage.catalog.segment_ids() == ["s"]


async def test_too_many_segments_are_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for number in range(10):
            await stage.catalog.put(f"s{number}", FIRST, None)
        with pytest.raises(LimitReached, match="segments_max"):
            await stage.catalog.put("s10", FIRST, None)
        await stage.catalog.delete("s0", None)
        await stage.catalog.put("s10", FIRST, None)


async def test_too_many_waiting_writes_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "COMMANDS_WAITING_MAX", 2)
    async with staged(tmp_path) as stage:
        stage.store.hold()
        taken = []
        for number in range(3):
            taken.append(stage.put(f"s{number}", "a"))
            await wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await stage.catalog.put("t", FIRST, None)
        stage.store.release()
        for outcome in taken:
            await outcome.get()
        assert stage.catalog.segment_ids() == ["s0", "s1", "s2"]


async def test_what_was_taken_is_finished_when_the_catalog_closes(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        taken = [stage.put(f"s{number}", "a") for number in range(3)]
        await wait_all_tasks_blocked()
        stage.catalog.close()
        with pytest.raises(ShuttingDown):
            await stage.catalog.put("t", FIRST, None)
        stage.store.release()
        for outcome in taken:
            await outcome.get()


async def test_events_and_segments_may_share_a_commit(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        first = stage.apply((b"\0first", "a", 2))
        await wait_all_tasks_blocked()
        event, segment = stage.apply((b"\0ada", "a", 2)), stage.put("s", "a")
        await wait_all_tasks_blocked()
        stage.store.release()
        for outcome in (first, event, segment):
            await outcome.get()
        assert [(len(record.changes), len(record.segments)) for record in stage.store.records] == [(1, 0), (1, 1)]
