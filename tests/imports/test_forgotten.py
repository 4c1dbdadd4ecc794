"""Whoever is forgotten while a list is on its way is not spoken of by it, even if its T is ahead of the clock."""

import time
from pathlib import Path

import pytest

from tests.imports.test_interrupted import Gate
from tests.imports.test_model import KIND, PEOPLE, SCHEMA, decide, members, running, send

pytestmark = pytest.mark.usefixtures("kind")
AHEAD_MS = 600_000


@pytest.mark.parametrize("ahead_ms", [-AHEAD_MS, AHEAD_MS])
@pytest.mark.parametrize("listed", [True, False])
async def test_forgotten_while_the_list_is_on_its_way_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool, ahead_ms: int
) -> None:
    now_ms = time.time_ns() // 1_000_000
    key = SCHEMA.key(KIND, "p5")
    async with running(tmp_path) as (store, imports):
        for person in PEOPLE[4:]:
            await decide(store, person, now_ms - 2 * AHEAD_MS, True)
        # What the list means for p5 is worked out, and held back until p5 is forgotten.
        gate = Gate(monkeypatch, store.lists, "write", 0 if listed else 2)
        people = ["p5"] if listed else PEOPLE[:4]
        job = await send(imports, people, now_ms + ahead_ms)
        await gate.reached.wait()
        await store.forget([key], time.time_ns() // 1_000_000)
        gate.open.set()
        await imports.jobs.ended(job)
        assert job.state == "completed"
        assert store.memberships(key) == {}
        assert members(store) == set(people) - {"p5"}
    async with running(tmp_path) as (store, _):
        assert store.memberships(key) == {}


async def test_a_list_that_is_taken_after_the_forgetting_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as (store, imports):
        await decide(store, "p5", 5, True)
        now_ms = time.time_ns() // 1_000_000
        await store.forget([SCHEMA.key(KIND, "p5")], now_ms - 1)
        await send(imports, ["p5"], now_ms + AHEAD_MS)
        await imports.jobs.settled()
        assert members(store) == {"p5"}
