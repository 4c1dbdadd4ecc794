"""Imports that are interrupted on their way: cancelled in time or too late, or their audience is deleted."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from segmentd.domain.membership import v_of
from segmentd.http.errors import Conflict
from segmentd.http.exchange import Answer
from segmentd.http.imports import ImportsApi
from segmentd.runtime import importer, importuploads
from segmentd.runtime.imports import Imports
from tests.imports.test_model import KIND, PEOPLE, SCHEMA, decide, members, running, send

pytestmark = pytest.mark.usefixtures("kind")


class Gate:
    """Holds a call of the store's back. passes: how many calls go through before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lists: Any, name: str, passes: int) -> None:
        self.reached, self.open = trio.Event(), trio.Event()
        act = getattr(lists, name)

        async def held(*arguments: Any) -> None:
            nonlocal passes
            passes -= 1
            if passes < 0:
                self.reached.set()
                await self.open.wait()
            await act(*arguments)

        monkeypatch.setattr(lists, name, held)


async def delete(imports: Imports, job_id: str) -> Answer:
    api = ImportsApi.__new__(ImportsApi)
    api._jobs, api._importer = imports.jobs, imports.importer
    request: Any = SimpleNamespace(params={"import_id": job_id})
    return await api.cancel(request)


async def test_cancelled_while_qualifying_it_keeps_who_is_in_and_voids_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (store, imports):
        await decide(store, "p5", 1, True)
        gate = Gate(monkeypatch, store.lists, "write", 1)
        job = await send(imports, PEOPLE[:4], 5)
        await gate.reached.wait()
        answer = await delete(imports, job.id)
        assert (answer.status, job.state, job.phase) == (200, "cancelled", "qualifying")
        gate.open.set()
        assert "p5" in members(store)
        assert len(members(store)) == 3, "one slice of two was in"
        await decide(store, "p4", 2, True)
        assert "p4" in members(store), "no floor was raised"


async def test_nobody_is_told_of_a_cancellation_before_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (store, imports):
        gate = Gate(monkeypatch, store.lists, "write", 0)
        job = await send(imports, PEOPLE[:4], 5)
        await gate.reached.wait()
        may_write, write = threading.Event(), imports.jobs.folder.write

        def held(job_id: str, encoded: bytes) -> None:
            assert may_write.wait(60)
            write(job_id, encoded)

        monkeypatch.setattr(imports.jobs.folder, "write", held)
        told: list[Answer] = []

        async def cancel() -> None:
            told.append(await delete(imports, job.id))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(cancel)
                await trio.testing.wait_all_tasks_blocked()
            unwritten = (job.state, list(told))
            may_write.set()
        assert unwritten == ("running", [])
        assert job.state == "cancelled"
        assert len(told) == 2


@pytest.mark.parametrize("written", [0, 1])
async def test_an_interrupted_list_is_ended_before_a_later_one_whose_upload_began_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    # An id is given when an upload begins, and jobs are taken when it ends.
    ids = iter(["000000000002-00000000", "000000000001-00000000"])
    monkeypatch.setattr(importuploads, "new_job_id", lambda: next(ids))
    async with running(tmp_path) as (store, imports):
        gate = Gate(monkeypatch, store.lists, "write", written)
        await send(imports, PEOPLE[:4], 3)
        await gate.reached.wait()
        await send(imports, PEOPLE[2:], 5)
    async with running(tmp_path) as (store, imports):
        await imports.jobs.settled()
        ended = [(job.as_of_ms, job.state, job.reason) for job in imports.jobs.newest_first()]
        assert ended == [(3, "completed", None), (5, "completed", None)]
        assert members(store) == set(PEOPLE[2:])


async def test_from_the_floor_on_it_is_too_late_to_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as (store, imports):
        await decide(store, "p5", 1, True)
        gate = Gate(monkeypatch, store.lists, "raise_floor", 0)
        job = await send(imports, PEOPLE[:4], 5)
        await gate.reached.wait()
        with pytest.raises(Conflict, match="goes through"):
            await delete(imports, job.id)
        gate.open.set()
        await imports.jobs.ended(job)
        assert job.state == "completed"
        assert members(store) == set(PEOPLE[:4])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("name", "passes"), [("write", 1), ("raise_floor", 0)])
async def test_an_audience_deleted_between_check_and_end_fails_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, passes: int, again: bool
) -> None:
    async with running(tmp_path) as (store, imports):
        await decide(store, "p5", 1, True)
        gate = Gate(monkeypatch, store.lists, name, passes)
        job = await send(imports, PEOPLE[:4], 5)
        await gate.reached.wait()
        await store.delete_audience("a", 10)
        if again:
            await decide(store, "p5", 20, True)
        gate.open.set()
        await imports.jobs.ended(job)
        assert (job.state, job.reason) == ("failed", "The audience was deleted meanwhile.")
        assert members(store) == ({"p5"} if again else set())


async def test_a_job_that_goes_on_under_another_number_of_its_audience_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (store, imports):
        gate = Gate(monkeypatch, store.lists, "raise_floor", 0)
        job = await send(imports, PEOPLE[:4], 5)
        await gate.reached.wait()
        assert job.audience_number == await store.lists.number("a")
        await store.delete_audience("a", 10)
        await decide(store, "p5", 20, True)
    async with running(tmp_path) as (store, imports):
        await imports.jobs.settled()
        resumed = imports.jobs.get(job.id)
        assert resumed is not None
        assert (resumed.state, resumed.reason) == ("failed", "The audience was deleted meanwhile.")
        assert members(store) == {"p5"}


async def test_an_import_that_finds_only_members_is_the_source_of_its_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, imports):
        await send(imports, PEOPLE, 3)
        daily = await send(imports, PEOPLE, 5)
        refused = await send(imports, PEOPLE[:1], 7, force=False)
        await imports.jobs.settled()
        assert (daily.qualified, daily.unchanged, refused.state) == (0, len(PEOPLE), "failed")
        sources = imports.jobs.qualifying("a")
        assert sources[v_of(5, True)] == daily.id
        assert v_of(7, True) not in sources


@pytest.mark.parametrize(("name", "passes"), [("raise_floor", 0), ("barrier", 0), ("write", 18)])
async def test_a_list_of_forgotten_people_that_is_interrupted_is_not_taken_for_a_deleted_audience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, passes: int
) -> None:
    everybody = [*PEOPLE, *(f"q{number}" for number in range(40))]
    async with running(tmp_path) as (store, imports):
        await store.forget([SCHEMA.key(KIND, person) for person in everybody], 50)
        monkeypatch.setattr(importer, "_SAVE_SECONDS", 0)
        gate = Gate(monkeypatch, store.lists, name, passes)
        job = await send(imports, everybody, 5)
        await gate.reached.wait()
        assert job.audience_number is not None
    for _ in range(2):
        async with running(tmp_path) as (store, imports):
            await imports.jobs.settled()
            resumed = imports.jobs.get(job.id)
            assert resumed is not None
            assert (resumed.state, resumed.reason) == ("completed", None)
            assert members(store) == set()


async def test_a_list_without_a_good_row_empties_no_audience_whatever_share_may_be_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (store, imports):
        await send(imports, PEOPLE, 3)
        monkeypatch.setattr(imports.importer, "_rejected_share_max", 1.0)
        empty = await send(imports, ["x" * 300], 5)
        await imports.jobs.settled()
        assert (empty.state, empty.rejected) == ("failed", 1)
        assert "never empties an audience" in (empty.reason or "")
        assert members(store) == set(PEOPLE)
