"""The promise of the store: acknowledged means on disk and visible; refused means that nothing happened."""

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from segmentd.domain.events import Change
from segmentd.domain.refusals import LimitReached, Overloaded, ShuttingDown, StoreUnavailable
from segmentd.storage.errors import StoreFailureError, StoreFullError
from tests.domain.strategies import AUDIENCES, KEYS, model_of
from tests.runtime.staged import staged

ADA, BOB = b"\0ada", b"\0bob"
FULL = "index: the LMDB map is full"


async def test_concurrent_writes_share_their_commits(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        first = stage.apply((ADA, "a", 2))
        await wait_all_tasks_blocked()
        others = [stage.apply((b"\0%d" % number, "a", 2)) for number in range(50)]
        await wait_all_tasks_blocked()
        assert stage.store.stats().commits_waiting == 50
        stage.store.release()
        for outcome in (first, *others):
            await outcome.get()
        assert [len(record.changes) for record in stage.store.records] == [1, 50]
        assert stage.observer.commits == 2
        assert stage.store.size("a") == 51


async def test_a_group_is_bounded_and_no_write_is_torn(tmp_path: Path) -> None:
    async with staged(tmp_path, runtime={"group_changes_max": 5}) as stage:
        stage.store.hold()
        stage.apply((ADA, "a", 2))
        await wait_all_tasks_blocked()
        writes = [[(b"\0%d-%d" % (write, number), "a", 2) for number in range(2)] for write in range(5)]
        large: list[Change] = [(b"\0large-%d" % number, "a", 2) for number in range(8)]
        for write in (*writes, large):
            stage.apply(*write)
            await wait_all_tasks_blocked()
        stage.store.release()
    assert [len(record.changes) for record in stage.store.records] == [1, 4, 4, 2, 8]


async def test_nothing_is_visible_or_acknowledged_before_it_is_on_disk(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        outcome = stage.apply((ADA, "a", 2))
        await wait_all_tasks_blocked()
        assert not outcome.done.is_set()
        assert stage.store.lookup(ADA, ["a"]) == [None]
        assert (stage.store.memberships(ADA), stage.store.size("a")) == ({}, 0)
        assert stage.store.stats().journal_records == 0
        stage.store.release()
        await outcome.get()
        assert stage.store.lookup(ADA, ["a", "b"]) == [2, None]
        assert (stage.store.memberships(ADA), stage.store.size("a")) == ({"a": 2}, 1)
        assert stage.store.stats().journal_records == 1


async def test_acknowledged_means_visible_to_whoever_looks_next(tmp_path: Path) -> None:
    told: list[Change] = [(KEYS[number % 5], AUDIENCES[number % 3], number * 7 % 40) for number in range(300)]
    async with staged(tmp_path, runtime={"group_changes_max": 7, "slice_changes_max": 2}) as stage:

        async def write(part: list[Change]) -> None:
            for start in range(0, len(part), 4):
                request = part[start : start + 4]
                await stage.store.apply(request)
                for key, audience, v in request:
                    [now] = stage.store.lookup(key, [audience])
                    assert now is not None
                    assert now >= v

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(write, told[number::10])
        assert stage.store.seen() == model_of(told)


async def test_a_write_whose_client_went_away_is_committed_all_the_same(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        committing, waiting = stage.apply((ADA, "a", 2)), stage.apply((BOB, "a", 4))
        await wait_all_tasks_blocked()
        committing.scope.cancel()
        waiting.scope.cancel()
        await committing.done.wait()
        await waiting.done.wait()
        assert stage.store.seen() == {}
        stage.store.release()
        await stage.apply((ADA, "b", 2)).get()
        assert stage.store.seen() == {(ADA, "a"): 2, (BOB, "a"): 4, (ADA, "b"): 2}


@pytest.mark.parametrize(
    ("bound", "request_size"), [({"commit_queue_requests_max": 2}, 1), ({"commit_queue_changes_max": 6}, 3)]
)
async def test_a_full_queue_refuses_at_once_and_applies_nothing_of_it(
    tmp_path: Path, bound: dict[str, int], request_size: int
) -> None:
    async with staged(tmp_path, runtime={**bound, "retry_after_seconds": 7}) as stage:
        stage.store.hold()
        taken = []
        for number in range(3):
            taken.append(stage.apply(*[(b"\0%d-%d" % (number, n), "a", 2) for n in range(request_size)]))
            await wait_all_tasks_blocked()
        with pytest.raises(Overloaded, match="Too many writes") as refused:
            await stage.store.apply([(ADA, "a", 2)] * request_size)
        assert refused.value.retry_after_seconds == 7
        stage.store.release()
        for outcome in taken:
            await outcome.get()
        assert stage.store.lookup(ADA, ["a"]) == [None]
        assert stage.store.size("a") == 3 * request_size
        await stage.store.apply([(ADA, "a", 2)])


async def test_what_was_taken_is_finished_when_the_store_closes_and_nothing_more_is_taken(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.hold()
        taken = [stage.apply((b"\0%d" % number, "a", 2)) for number in range(5)]
        await wait_all_tasks_blocked()
        stage.store.close()
        with pytest.raises(ShuttingDown):
            await stage.store.apply([(ADA, "a", 2)])
        stage.store.release()
        for outcome in taken:
            await outcome.get()
        assert stage.store.size("a") == 5
        assert stage.store.lookup(ADA, ["a"]) == [None]


async def test_a_full_disk_refuses_the_writes_that_met_it_and_takes_the_later_ones(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.store.errors.append(StoreFullError(FULL))
        with pytest.raises(StoreUnavailable, match=f"The store is full: {FULL}"):
            await stage.store.apply([(ADA, "new", 2)])
        assert stage.store.failure() is None
        assert stage.store.seen() == {}
        await stage.store.apply([(BOB, "newer", 2), (ADA, "new", 4)])
        assert stage.store.seen() == {(BOB, "newer"): 2, (ADA, "new"): 4}
        # The audiences that no record held yet came with the first record that could be written.
        assert [audience for _, audience in stage.store.records[0].audiences] == ["new", "newer"]
        assert (stage.observer.commits, stage.observer.commits_failed) == (1, 1)


async def test_a_failed_commit_ends_all_writing_and_reading_goes_on(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.store.apply([(ADA, "a", 2)])
        stage.store.hold()
        stage.store.errors.append(StoreFailureError("journal: Input/output error"))
        failing = stage.apply((ADA, "a", 4))
        await wait_all_tasks_blocked()
        waiting = stage.apply((BOB, "a", 4))
        await wait_all_tasks_blocked()
        stage.store.release()
        with pytest.raises(
            StoreUnavailable, match=r"whether this .* was applied will show .* Send the identical request"
        ):
            await failing.get()
        with pytest.raises(StoreUnavailable, match=r"Writing has stopped after a storage failure; see the log\.$"):
            await waiting.get()
        assert stage.store.failure() == "journal: Input/output error"
        for refused in (stage.apply((BOB, "a", 4)), stage.put("s", "a")):
            with pytest.raises(StoreUnavailable):
                await refused.get()
        assert stage.store.seen() == {(ADA, "a"): 2}
        assert len(stage.store.records) == 1


async def test_an_audience_too_many_is_refused_with_its_whole_request(tmp_path: Path) -> None:
    async with staged(tmp_path, limits={"audiences_max": 2}) as stage:
        await stage.store.apply([(ADA, "a", 2)])
        with pytest.raises(LimitReached, match=r"1 audiences and the request would add 2; at most 2") as refused:
            await stage.store.apply([(ADA, "a", 4), (ADA, "b", 4), (BOB, "c", 4)])
        assert (refused.value.limit_name, refused.value.limit) == ("audiences_max", 2)
        assert stage.store.stats().audiences == 1
        assert stage.store.seen() == {(ADA, "a"): 2}
        await stage.store.apply([(ADA, "b", 4), (BOB, "b", 4)])
        assert stage.store.stats().audiences == 2


async def test_a_request_without_changes_is_done_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.store.apply([])
        assert stage.store.records == []


async def test_a_full_journal_refuses_until_it_is_folded_and_then_empties_itself(tmp_path: Path) -> None:
    async with staged(tmp_path, storage={"journal_bytes_max": 1_000}) as stage:
        taken = 0
        while (stage.store.stats().journal_bytes or 0) <= 1_000:
            await stage.store.apply([(b"\0%d" % taken, "a", 2)])
            taken += 1
        with pytest.raises(Overloaded, match="The journal is full until a checkpoint ends"):
            await stage.store.apply([(ADA, "a", 2)])
        assert stage.store.size("a") == taken
        with stage.store.checkpointing.cuts_held():
            stage.store.fold_by_hand()
            with pytest.raises(Overloaded):
                await stage.store.apply([(ADA, "a", 2)])
        await stage.store.apply([(ADA, "a", 2)])
        assert stage.store.stats().journal_records == 1
        await stage.store.apply([(BOB, "a", 2)])
        assert stage.store.size("a") == taken + 2


async def test_figures_say_what_is_there(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.store.apply([(ADA, "a", 2), (ADA, "b", 3), (BOB, "a", 2)])
        stats = stage.store.stats()
        assert (stats.identifiers, stats.memberships, stats.audiences) == (2, 3, 2)
        assert (stats.journal_records, stats.unfolded_records, stats.commits_waiting) == (1, 1, 0)
        stage.store.fold_by_hand()
        assert stage.store.stats().unfolded_records == 0
