"""Imports of several nodes: each node shows all of them, runs its own, and never waits for the others."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import StoreUnavailable
from segmentd.http.errors import Conflict
from segmentd.http.exchange import Answer, Request
from segmentd.http.imports import ImportsApi, NoSuchImport
from segmentd.runtime import importmirror
from segmentd.runtime.importmirror import JobElsewhere
from segmentd.runtime.imports import Imports
from tests.http.world import read
from tests.imports.test_interrupted import Gate
from tests.imports.test_model import PEOPLE, members, running, send

SECONDS_MAX = 60.0


class Place:
    """What all nodes see: encoded jobs by node."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, bytes]] = {}
        self.refusal: StoreUnavailable | None = None


class Mirror:
    """One node's way to the place; every call takes a moment."""

    def __init__(self, place: Place, node: str) -> None:
        self._place, self._node = place, node
        self._ours = place.jobs.setdefault(node, {})

    async def _reach(self) -> None:
        await trio.sleep(0.001)
        if self._place.refusal is not None:
            raise self._place.refusal

    async def save(self, jobs: Sequence[ImportJob]) -> None:
        encoded = {job.id: msgspec.json.encode(job) for job in jobs}
        await self._reach()
        self._ours |= encoded

    async def remove(self, job_ids: Sequence[str]) -> None:
        await self._reach()
        for job_id in job_ids:
            self._ours.pop(job_id, None)

    async def saved(self) -> Sequence[str]:
        await self._reach()
        return list(self._ours)

    async def get(self, job_id: str) -> JobElsewhere | None:
        return next((found for found in await self.load() if found.job.id == job_id), None)

    async def load(self) -> Sequence[JobElsewhere]:
        await self._reach()
        others = ((node, jobs) for node, jobs in self._place.jobs.items() if node != self._node)
        return [
            JobElsewhere(msgspec.json.decode(encoded, type=ImportJob), node)
            for node, jobs in others
            for encoded in jobs.values()
        ]


async def ask(imports: Imports, job_id: str, *, cancel: bool = False) -> Answer:
    api = ImportsApi.__new__(ImportsApi)
    api._jobs, api._importer = imports.jobs, imports.importer
    request = Request("GET", f"/v3/imports/{job_id}", "", {}, params={"import_id": job_id})
    return await (api.cancel(request) if cancel else api.get(request))


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110  # what others do is only seen by looking
            await trio.sleep(0.01)


def listed(imports: Imports) -> dict[str, str]:
    return {job.id: job.state for job in imports.jobs.newest_first()}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(importmirror, "LOOK_SECONDS", 0.01)
    return Place()


async def test_a_job_is_shown_by_every_node_from_its_beginning_to_its_end(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running(tmp_path / "a", Mirror(place, "a")) as (store, here),
        running(tmp_path / "b", Mirror(place, "b")) as (other, there),
    ):
        gate = Gate(monkeypatch, store.lists, "raise_floor", 0)
        job = await send(here, PEOPLE[:4], 5)
        assert read(await ask(there, job.id))["id"] == job.id, "known when its client learns of it"
        await gate.reached.wait()
        await until(lambda: listed(there) == {job.id: "running"})
        assert there.jobs.present() == (0, 0)
        assert there.jobs.last_completed("a") is None
        gate.open.set()
        await here.jobs.settled()
        await until(lambda: listed(there) == {job.id: "completed"})
        found = there.jobs.last_completed("a")
        assert found is not None
        assert found.id == job.id
        assert there.jobs.qualifying("a") == {v_of(5, True): job.id}
        assert there.jobs.deciding({"a"}) == here.jobs.deciding({"a"}) != {}
        assert read(await ask(there, job.id)) == read(await ask(here, job.id))
        assert members(other) == set(), "it ran where its list is"
        assert there.jobs.ended_states["completed"] == 0


async def test_a_job_is_cancelled_on_its_own_node_and_the_refusal_names_it(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running(tmp_path / "a", Mirror(place, "node-a")) as (store, here),
        running(tmp_path / "b", Mirror(place, "node-b")) as (_, there),
    ):
        gate = Gate(monkeypatch, store.lists, "write", 0)
        job, second = await send(here, PEOPLE[:4], 5), await send(here, PEOPLE, 7)
        await gate.reached.wait()
        with pytest.raises(Conflict, match="on another node, node-a"):
            await ask(there, job.id, cancel=True)
        assert job.state == "running"
        assert (await ask(here, job.id, cancel=True)).status == 200
        gate.open.set()
        await here.jobs.settled()
        await until(lambda: listed(there) == {job.id: "cancelled", second.id: "completed"})
        again = await ask(there, job.id, cancel=True)
        assert (again.status, read(again)["state"]) == (200, "cancelled")
        with pytest.raises(Conflict, match=r"The import is completed\."):
            await ask(there, second.id, cancel=True)
        with pytest.raises(NoSuchImport):
            await ask(there, "000000000000-00000000")


async def test_a_mirror_that_is_away_holds_up_nothing_and_is_told_everything_later(
    tmp_path: Path, place: Place
) -> None:
    place.refusal = StoreUnavailable("The cluster is away.", 3)
    async with (
        running(tmp_path / "a", Mirror(place, "a")) as (_, here),
        running(tmp_path / "b", Mirror(place, "b")) as (_, there),
    ):
        with capture_logs() as logs:
            job = await send(here, PEOPLE[:4], 5)
            await here.jobs.settled()
            await trio.sleep(0.1)
        assert (await ask(here, job.id)).status == 200
        with pytest.raises(StoreUnavailable):
            await ask(there, job.id)
        # It may have been told before, on each of the nodes; never again while it is the same.
        assert sum("other nodes cannot be seen" in entry["event"] for entry in logs) <= 2
        place.refusal = None
        await until(lambda: listed(there) == {job.id: "completed"})


async def test_a_job_that_is_kept_no_more_is_gone_everywhere_whatever_happened_meanwhile(
    tmp_path: Path, place: Place
) -> None:
    async with running(tmp_path / "b", Mirror(place, "b")) as (_, there):
        async with running(tmp_path / "a", Mirror(place, "a"), jobs_kept_max=2) as (_, here):
            jobs = []
            for as_of in (3, 4, 5):
                jobs.append(await send(here, PEOPLE, as_of))
                await here.jobs.settled()
            await until(lambda: listed(there) == {job.id: "completed" for job in jobs[1:]})
            place.refusal = StoreUnavailable("The cluster is away.", 3)
            jobs.append(await send(here, PEOPLE, 6))
            await here.jobs.settled()
        place.refusal = None
        async with running(tmp_path / "a", Mirror(place, "a"), jobs_kept_max=2):
            await until(lambda: listed(there) == {job.id: "completed" for job in jobs[2:]})
