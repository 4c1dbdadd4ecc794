"""Events, whole lists and restarts in any order end in what the contract says: the state is a function of the set.

The model: of all decisions about an identifier the largest counts. An event decides with its `v`; an import as of T
decides 2T for the listed, and 2T - 1 (out, just before T) for everybody else.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import LimitReached
from segmentd.runtime.importmirror import JobMirror
from segmentd.runtime.imports import Imports
from segmentd.runtime.importuploads import ImportWish
from segmentd.runtime.store import LocalStore
from segmentd.settings import ImportsSettings, LimitsSettings, Settings, StorageSettings
from tests.imports.awaited import AwaitedLists
from tests.runtime.world import MAP_BYTES, Unobserved, data_folder

pytestmark = pytest.mark.usefixtures("kind")
KIND = IdentifierKind("fs_user_id", Confidence.HIGH, 0)
SCHEMA = IdentifierSchema([KIND])
PEOPLE = [f"p{number}" for number in range(6)]
LATEST = 9


class Lists:
    """How lists come into the store now."""

    are_awaited = False


LISTS = Lists()


def settings_of(data: Path, **imports: Any) -> Settings:
    storage = StorageSettings(
        path=str(data), journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, journal_bytes_max=MAP_BYTES // 2
    )
    return Settings(
        storage=storage, imports=ImportsSettings(slice_changes=2, **imports), limits=LimitsSettings(audiences_max=3)
    )


@asynccontextmanager
async def running(
    data: Path, mirror: JobMirror | None = None, **imports_settings: Any
) -> AsyncIterator[tuple[LocalStore, Imports]]:
    """A store and its imports, as after a start; cancelled at the end, as a kill would, at whatever point they are."""
    settings = settings_of(data, **imports_settings)
    folder = data_folder(data)
    store = LocalStore(
        folder, storage=settings.storage, runtime=settings.runtime, limits=settings.limits, observer=Unobserved()
    )
    store.recover()
    store.kind_numbers([KIND.name])
    lists = AwaitedLists(store) if LISTS.are_awaited else store.lists
    imports = Imports(settings, SCHEMA, lists, mirror=mirror)
    await imports.load()
    async with trio.open_nursery() as stores:
        await stores.start(store.run)
        async with trio.open_nursery() as importing:
            importing.start_soon(imports.run)
            yield store, imports
            importing.cancel_scope.cancel()
        store.close()
    store.close_environments()
    folder.close()


async def chunks(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def send(imports: Imports, listed: list[str], as_of: int, audience: str = "a", **wishes: object) -> ImportJob:
    text = "fs_user_id\n" + "".join(f"{person}\n" for person in listed)
    wish = ImportWish(audience_id=audience, source="test", as_of_ms=as_of, **{"force": True, **wishes})  # type: ignore[arg-type]
    return await imports.uploads.take(wish, chunks(text))


async def decide(store: LocalStore, person: str, ts: int, qualified: bool) -> None:
    await store.apply([(SCHEMA.key(KIND, person), "a", v_of(ts, qualified))])


def members(store: LocalStore) -> set[str]:
    found = {person: store.lookup(SCHEMA.key(KIND, person), ["a"])[0] for person in PEOPLE}
    qualified = {person for person, v in found.items() if v is not None and not v & 1}
    assert store.size("a") == len(qualified)
    return qualified


EVENT = st.tuples(st.just("event"), st.sampled_from(PEOPLE), st.integers(0, LATEST), st.booleans())
LIST = st.tuples(st.just("list"), st.sets(st.sampled_from(PEOPLE), min_size=1), st.integers(0, LATEST), st.booleans())
KILL = st.tuples(st.just("kill"), st.just(""), st.integers(0, 400), st.booleans())


@given(steps=st.lists(st.one_of(EVENT, EVENT, EVENT, LIST, KILL), max_size=12))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_state_is_a_function_of_the_set_of_events_and_lists(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | set[str], int, bool]]
) -> None:
    data = tmp_path_factory.mktemp("data")
    decisions: dict[str, int] = {}

    def note(person: str, v: int) -> None:
        decisions[person] = max(v, decisions.get(person, -1))

    async def life(steps: list[tuple[str, str | set[str], int, bool]]) -> int:
        """Until a kill or the end; returns how many steps were taken."""
        async with running(data) as (store, imports):
            for taken, (kind, who, ts, flag) in enumerate(steps, start=1):
                if kind == "kill":
                    await trio.sleep(ts / 1000)
                    return taken
                if isinstance(who, str):
                    await decide(store, who, ts, flag)
                    note(who, v_of(ts, flag))
                    continue
                job = await send(imports, sorted(who), ts)
                for person in PEOPLE:
                    note(person, 2 * ts if person in who else 2 * ts - 1)
                if flag:
                    # Otherwise the events that follow meet the import on its way.
                    await imports.jobs.ended(job)
            await imports.jobs.settled()
            assert members(store) == {person for person, v in decisions.items() if v >= 0 and not v & 1}
            return len(steps)

    first = True
    while steps or first:
        first = False
        steps = steps[trio.run(life, steps) :]
    trio.run(life, [])


@pytest.mark.parametrize("order", [("early", "late"), ("late", "early")])
async def test_of_two_lists_the_later_t_wins_whatever_the_order(tmp_path: Path, order: tuple[str, str]) -> None:
    lists = {"early": (["p0", "p1"], 3), "late": (["p1", "p2"], 5)}
    async with running(tmp_path) as (store, imports):
        jobs = [await send(imports, *lists[name]) for name in order]
        await imports.jobs.settled()
        assert {job.state for job in jobs} == {"completed"}
        assert members(store) == {"p1", "p2"}


async def test_the_same_list_once_more_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await send(imports, PEOPLE[:4], 5)
        await imports.jobs.settled()
        again = await send(imports, PEOPLE[:4], 5)
        await imports.jobs.settled()
        assert (again.state, again.qualified, again.unchanged, again.disqualified) == ("completed", 0, 4, 0)
        keys = [SCHEMA.key(KIND, person) for person in PEOPLE[:4]]
        words, _ = await store.lists.listed(keys, await store.lists.number("a"), 5)
        assert words == [], "there is nothing to write"


async def test_what_happened_after_t_stays_and_what_comes_late_from_before_t_is_void(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await decide(store, "p0", 2, True)
        await decide(store, "p1", 7, True)
        await decide(store, "p2", 7, False)
        job = await send(imports, ["p2", "p3"], 5)
        await imports.jobs.settled()
        assert (job.qualified, job.disqualified, job.unchanged) == (1, 1, 1)
        await decide(store, "p4", 4, True)
        await decide(store, "p3", 4, False)
        await decide(store, "p5", 5, True)
        assert members(store) == {"p1", "p3", "p5"}


async def test_too_many_disqualifications_are_refused_unless_forced(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await send(imports, PEOPLE, 1)
        refused = await send(imports, PEOPLE[:2], 5, force=False)
        await imports.jobs.settled()
        assert refused.state == "failed"
        assert "4 of 6 members" in (refused.reason or "")
        assert members(store) == set(PEOPLE)
        await decide(store, "p5", 3, False)
        allowed = await send(imports, PEOPLE[:2], 5, force=False, max_shrink=0.8)
        await imports.jobs.settled()
        assert (allowed.state, allowed.disqualified) == ("completed", 3)
        assert members(store) == set(PEOPLE[:2])


async def test_a_dry_run_counts_exactly_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await send(imports, PEOPLE[:3], 1)
        await imports.jobs.settled()
        job = await send(imports, PEOPLE[1:5], 5, dry_run=True)
        await imports.jobs.settled()
        assert (job.state, job.qualified, job.unchanged, job.disqualified) == ("completed", 2, 2, 1)
        assert members(store) == set(PEOPLE[:3])
        unknown = await send(imports, PEOPLE, 5, audience="nobody", dry_run=True)
        await imports.jobs.settled()
        assert unknown.qualified == len(PEOPLE)
        assert store.stats().audiences == 1


async def test_an_audience_too_many_fails_the_import(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        for number in range(3):
            await store.apply([(b"\0u", f"other{number}", 2)])
        job = await send(imports, ["p0"], 5)
        await imports.jobs.settled()
        assert job.state == "failed"
        assert "audiences_max" in (job.reason or "")
        with pytest.raises(LimitReached):
            await decide(store, "p0", 1, True)


async def test_a_list_is_cancelled_before_its_turn_and_stays_so_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, imports):
        await send(imports, ["p0"], 3)
        second = await send(imports, ["p1"], 5)
        assert await imports.importer.cancel(second)
        await imports.jobs.settled()
    async with running(tmp_path) as (store, imports):
        assert members(store) == {"p0"}
        assert [job.state for job in imports.jobs.newest_first()] == ["cancelled", "completed"]
        assert not imports.jobs.folder.staged(second.id).exists()


async def test_an_audience_deleted_on_the_way_fails_the_import(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await send(imports, PEOPLE, 3)
        await imports.jobs.settled()
        await store.delete_audience("a", 10)
        late = await send(imports, PEOPLE, 5)
        await imports.jobs.settled()
        assert "Superseded" in (late.reason or "")
        assert members(store) == set()
        later = await send(imports, PEOPLE[:1], 20)
        await imports.jobs.settled()
        assert later.state == "completed"
        assert members(store) == {"p0"}
