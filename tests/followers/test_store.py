"""A follower's store, one situation at a time; the model test shuffles them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from segmentd.domain.segments import SegmentDefinition
from segmentd.storage.overlay import TABLE_CHANGES
from tests.followers.world import AUDIENCES, KEYS, Follower, FollowerError, owner
from tests.runtime.world import change

ANN, BOB, _ = KEYS


@pytest.fixture(scope="module")
def process() -> Iterator[Follower]:
    with Follower() as started:
        yield started


@pytest.fixture
def follower(process: Follower) -> Iterator[Follower]:
    yield process
    process.ask("close")


async def test_what_was_acknowledged_is_seen_by_whoever_reads_next(tmp_path: Path, follower: Follower) -> None:
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        assert follower.read() == ({}, {})
        for number in range(1, 20):
            await begun.store.apply([change(ANN, "red", number, number % 3 > 0)])
            await begun.catalog.put("s", SegmentDefinition(AUDIENCES[number % 2]), None)
            assert follower.read() == begun.read()


async def test_one_that_was_idle_while_the_journal_was_cut_catches_up_from_the_index(
    tmp_path: Path, follower: Follower
) -> None:
    async with owner(tmp_path / "data") as begun:
        await begun.store.apply([change(ANN, "red", 1, True)])
        follower.open(tmp_path / "data", begun.page)
        assert follower.read() == begun.read()
        await begun.catalog.put("s", SegmentDefinition("red"), None)
        await begun.store.delete_audience("red", 3)
        await begun.store.apply([change(BOB, "green", 4, True)])
        begun.store.fold_published()
        begun.store.cut()
        assert begun.store.stats().journal_records == 0
        assert follower.read() == begun.read() == ({(BOB, "green"): 8}, {"s": (1, "red")})
        assert follower.ask("stats")["reloads"] == 2


async def test_a_forgotten_identifier_is_hidden_from_index_and_overlay_and_may_come_back(
    tmp_path: Path, follower: Follower
) -> None:
    async with owner(tmp_path / "data") as begun:
        await begun.store.apply([change(ANN, "red", 1, True), change(BOB, "red", 1, True)])
        begun.store.fold_published()
        follower.open(tmp_path / "data", begun.page)
        await begun.store.apply([change(ANN, "green", 2, True)])
        assert follower.read()[0].keys() == {(ANN, "red"), (ANN, "green"), (BOB, "red")}
        await begun.store.forget([ANN], 3)
        assert follower.read()[0] == {(BOB, "red"): 2}
        await begun.store.apply([change(ANN, "red", 4, True)])
        assert follower.read()[0] == {(BOB, "red"): 2, (ANN, "red"): 8}
        begun.store.fold_published(1)
        assert follower.read() == begun.read()


async def test_an_audience_that_comes_back_has_a_new_number_and_none_of_its_old_members(
    tmp_path: Path, follower: Follower
) -> None:
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        await begun.store.apply([change(ANN, "red", 1, True), change(BOB, "red", 1, True)])
        await begun.store.delete_audience("red", 5)
        assert follower.read()[0] == {}
        await begun.store.apply([change(BOB, "red", 6, True)])
        assert follower.read()[0] == {(BOB, "red"): 12}
        begun.store.fold_published()
        begun.store.sweep(10)
        follower.ask("close")
        follower.open(tmp_path / "data", begun.page)
        assert follower.read()[0] == {(BOB, "red"): 12}


@pytest.mark.parametrize("told", [True, False])
async def test_after_a_scrub_nothing_of_the_old_files_is_open(tmp_path: Path, follower: Follower, told: bool) -> None:
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        await begun.store.apply([change(ANN, "red", 1, True)])
        await begun.store.forget([ANN], 3)
        assert follower.read()[0] == {}
        generation = begun.store.swap()
        if told:
            follower.ask("reopen", generation)
        begun.store.remove_old_files()
        await begun.store.apply([change(BOB, "red", 4, True)])
        assert follower.read()[0] == {(BOB, "red"): 8}
        opened = follower.ask("files")
        assert opened
        assert all(f"-{generation}/" in file for file in opened), opened
        follower.ask("reopen", generation)
        assert follower.read() == begun.read()


async def test_a_generation_that_is_not_the_valid_one_is_refused(tmp_path: Path, follower: Follower) -> None:
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        with pytest.raises(FollowerError, match="is valid, not another"):
            follower.ask("reopen", "another")


async def test_the_overlay_is_bounded_by_what_is_not_folded(tmp_path: Path, follower: Follower) -> None:
    size = 1_000
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        unfolded = 0
        for batch in range(140):
            await begun.store.apply([change(b"\0%d" % (batch * size + n), "red", 1, True) for n in range(size)])
            unfolded += size
            if batch % 50 == 49:
                begun.store.fold_published()
                unfolded = 0
            follower.ask("catch_up")
            held = follower.ask("stats")["overlay_changes"]
            assert unfolded <= held <= unfolded + TABLE_CHANGES + size
        begun.store.fold_published()
        follower.ask("catch_up")
        assert follower.ask("stats")["overlay_changes"] == 0


async def test_no_snapshot_is_held_between_answers(tmp_path: Path, follower: Follower) -> None:
    async with owner(tmp_path / "data") as begun:
        follower.open(tmp_path / "data", begun.page)
        await begun.store.apply([change(ANN, "red", 1, True)])
        follower.read()
        for environment in (begun.store._journal._env, begun.store._index._env):
            with environment.begin():
                rows = [line.split() for line in environment.readers().splitlines()]
            assert [row for row in rows if row[0] == str(os.getpid()) and row[2] != "-"], "held ones are listed"
            assert not [row for row in rows if row[0] == str(follower.pid) and row[2] != "-"], rows


async def test_an_index_that_is_ahead_of_what_is_visible_is_another_owners_and_is_not_shown(
    tmp_path: Path, follower: Follower
) -> None:
    async with owner(tmp_path / "data") as begun:
        await begun.store.apply([change(ANN, "red", 1, True)])
        follower.open(tmp_path / "data", begun.page)
        await begun.store.apply([change(ANN, "red", 2, False)])
        begun.store.fold_published()
        begun.visible.publish(1)
        with pytest.raises(FollowerError, match="stands for record 2, which is not visible"):
            follower.read()


async def test_a_record_that_is_missing_everywhere_is_an_error_and_not_an_older_answer(
    tmp_path: Path, follower: Follower
) -> None:
    async with owner(tmp_path / "data") as begun:
        await begun.store.apply([change(ANN, "red", 1, True)])
        follower.open(tmp_path / "data", begun.page)
        begun.visible.publish(3)
        with pytest.raises(FollowerError, match="record 2 is missing"):
            follower.read()


async def test_a_folder_without_a_store_is_refused(tmp_path: Path, process: Follower) -> None:
    async with owner(tmp_path / "data") as begun:
        (tmp_path / "empty").mkdir()
        with pytest.raises(FollowerError, match="this is no data folder"):
            process.open(tmp_path / "empty", begun.page)


async def test_identifier_names_are_those_that_the_owner_serves(tmp_path: Path, follower: Follower) -> None:
    async with owner(tmp_path / "data") as begun:
        begun.store.kind_numbers(["fs_user_id", "email"])
        follower.open(tmp_path / "data", begun.page)
        assert follower.ask("kind_numbers", ["email"])["email"] == 1
        with pytest.raises(FollowerError, match="does not serve the identifier vuid"):
            follower.ask("kind_numbers", ["vuid"])


async def test_a_real_scrub_waits_until_followers_have_moved(tmp_path: Path, follower: Follower) -> None:
    moved: list[str] = []

    async with owner(tmp_path / "data") as begun, trio.open_nursery() as nursery:
        nursery.start_soon(begun.store.checkpointing.run)
        await begun.store.apply([change(ANN, "red", 1, True)])
        follower.open(tmp_path / "data", begun.page)
        await begun.store.forget([ANN], 3)

        async def on_new_generation(generation: str) -> None:
            assert len(list((tmp_path / "data").glob("index*"))) == 2, "the old files went before followers did"
            follower.ask("reopen", generation)
            moved.append(generation)

        begun.store.on_new_generation = on_new_generation
        await begun.store.scrub()
        assert all(f"-{moved[0]}/" in file for file in follower.ask("files"))
        assert follower.read() == begun.read() == ({}, {})
        nursery.cancel_scope.cancel()
