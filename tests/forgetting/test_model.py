"""Events, deletions and forgettings in any order, with folds, sweeps and crashes between any two, against a model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.storage.check import check
from tests.runtime.world import HandDrivenStore, change, data_folder, opened, seen, sizes_of

KEYS = [b"\0" + name.encode() for name in ("ann", "bob", "cyd")]
AUDIENCES = ["red", "green"]

Step = tuple[Any, ...]

changes = st.builds(change, st.sampled_from(KEYS), st.sampled_from(AUDIENCES), st.integers(1, 9), st.booleans())
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("events"), st.lists(changes, min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(AUDIENCES), st.integers(1, 9)),
    st.tuples(st.just("forget"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=2), st.integers(1, 9)),
    st.tuples(st.just("fold"), st.integers(1, 6)),
    st.tuples(st.just("sweep"), st.integers(1, 3)),
    st.tuples(st.just("crash")),
)


class Model:
    """What must be seen, in the simplest way there is."""

    def __init__(self) -> None:
        self.state: dict[tuple[bytes, str], int] = {}
        self._floors: dict[str, int] = {}
        self._forgotten: dict[bytes, int] = {}

    def events(self, listed: Sequence[tuple[bytes, str, int]]) -> None:
        for key, audience, v in listed:
            void = v % 2 == 0 and v < self._floors.get(audience, 0)
            if not void and v // 2 > self._forgotten.get(key, -1):
                self.state[key, audience] = max(v, self.state.get((key, audience), v))

    def delete(self, audience: str, now_ms: int) -> None:
        self.state = {place: v for place, v in self.state.items() if place[1] != audience}
        self._floors[audience] = max(now_ms * 2, self._floors.get(audience, 0))

    def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        self.state = {place: v for place, v in self.state.items() if place[0] not in keys}
        for key in keys:
            self._forgotten[key] = max(now_ms, self._forgotten.get(key, 0))


async def _take(store: HandDrivenStore, model: Model, known: set[str], step: Step) -> None:
    name, *arguments = step
    if name == "events":
        await store.apply(arguments[0])
        model.events(arguments[0])
        known.update(audience for _, audience, _ in arguments[0])
    elif name == "delete":
        deletion = await store.delete_audience(*arguments)
        assert (deletion is not None) == (arguments[0] in known)
        if deletion is not None:
            model.delete(*arguments)
            known.discard(arguments[0])
    elif name == "forget":
        await store.forget(*arguments)
        model.forget(*arguments)
    elif name == "fold":
        store.fold(*arguments)
    elif name == "sweep":
        store.sweep(*arguments)


def _compare(store: HandDrivenStore, model: Model) -> None:
    assert seen(store.held()) == model.state
    assert {audience: store.size(audience) for audience in AUDIENCES} == sizes_of(model.state, AUDIENCES)
    assert store.recounted()


async def _live(path: Path, told: Sequence[Step]) -> None:
    model, known, waiting = Model(), set[str](), list(told)
    while waiting:
        async with opened(path) as store:
            _compare(store, model)
            while waiting:
                step = waiting.pop(0)
                if step[0] == "crash":
                    break
                await _take(store, model, known, step)
                _compare(store, model)
    async with opened(path) as store:
        _compare(store, model)
        await store.settle()
        store.fold()
        while store.checkpointing.unswept:
            store.sweep(2)
        assert store.stats().memberships == len(model.state), "something deleted is still held"
    with data_folder(path) as folder:
        report = check(folder)
        assert (report.differences, report.memberships) == ([], len(model.state))


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=14))
def test_what_was_deleted_and_forgotten_stays_so_through_folds_sweeps_and_crashes(told: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_live, Path(folder) / "data", told)
