"""Owner and followers against one model: writes, folds, cuts, sweeps, scrubs, crashes, and looks between any two.

The model is the one of deletions and forgettings, with segments beside it. Every look must show exactly what is
published: followers while a record is on disk and not published (nothing of it), and when it is published and not
merged by the owner (all of it); the owner as soon as `merged` has been waited for.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.domain.segments import SegmentDefinition
from segmentd.storage.check import check
from tests.followers.world import AUDIENCES, KEYS, SEGMENT_IDS, Follower, Owner, Seen, owner
from tests.forgetting.test_model import Model
from tests.runtime.world import change, data_folder

FOLLOWERS = 2

Step = tuple[Any, ...]

changes = st.builds(change, st.sampled_from(KEYS), st.sampled_from(AUDIENCES), st.integers(1, 9), st.booleans())
times = st.integers(1, 9)
writes: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("events"), st.lists(changes, min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(AUDIENCES), times),
    st.tuples(st.just("forget"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=2), times),
    st.tuples(st.just("put"), st.sampled_from(SEGMENT_IDS), st.sampled_from(AUDIENCES)),
    st.tuples(st.just("remove"), st.sampled_from(SEGMENT_IDS)),
)
who = st.integers(0, FOLLOWERS - 1)
looks = st.sets(st.tuples(st.sampled_from(["on disk", "published", "after"]), who), max_size=3)
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("write"), writes, looks, st.booleans()),
    st.tuples(st.just("write"), writes, looks, st.booleans()),
    st.tuples(st.just("fold"), st.integers(1, 6)),
    st.tuples(st.just("cut")),
    st.tuples(st.just("sweep"), st.integers(1, 3)),
    st.tuples(st.just("scrub"), st.sets(who)),
    st.tuples(st.just("look"), who),
    st.tuples(st.just("begin anew"), who),
    st.tuples(st.just("crash")),
)


# So that there is something to forget, to delete and to fold from the first step on.
FILLED: list[Step] = [
    ("write", ("events", [change(key, audience, 4, True) for key in KEYS for audience in AUDIENCES]), set(), False),
    ("write", ("put", "s", "red"), set(), False),
    ("fold", 6),
    ("write", ("events", [change(key, "red", 5, False) for key in KEYS]), set(), False),
]


class World:
    """The owner, its followers, and what all of them must show."""

    def __init__(self, path: Path, follow: Sequence[Follower]) -> None:
        self.path = path
        self.followers = follow
        self.model = Model()
        self.segments: dict[str, tuple[int, str]] = {}
        self.revisions: dict[str, int] = {}
        self.owner: Owner

    def expected(self) -> Seen:
        return dict(self.model.state), dict(self.segments)

    def enter(self, begun: Owner) -> None:
        self.owner = begun
        for follower in self.followers:
            follower.open(self.path, begun.page)

    def leave(self) -> None:
        for follower in self.followers:
            follower.ask("close")

    def compare_all(self) -> None:
        assert self.owner.read() == self.expected()
        for follower in self.followers:
            assert follower.read() == self.expected()

    async def take(self, step: Step) -> None:
        name, *arguments = step
        if name == "write":
            await self.write(*arguments)
        elif name == "fold":
            self.owner.store.fold_published(*arguments)
        elif name == "cut":
            self.owner.store.cut()
        elif name == "sweep":
            self.owner.store.sweep(*arguments)
        elif name == "scrub":
            self.scrub(*arguments)
        elif name == "look":
            assert self.followers[arguments[0]].read() == self.expected()
        elif name == "begin anew":
            self.followers[arguments[0]].ask("close")
            self.followers[arguments[0]].open(self.path, self.owner.page)

    def scrub(self, told: set[int]) -> None:
        """Followers that are not told find out by themselves, when the next record is not in their journal."""
        generation = self.owner.store.swap()
        for number in told:
            self.followers[number].ask("reopen", generation)
        self.owner.store.remove_old_files()

    async def write(self, write: Step, looks: set[tuple[str, int]], fold_meanwhile: bool) -> None:
        store, before = self.owner.store, self.expected()
        if not self.note(write):
            return
        wanted = self.expected()

        def on_disk() -> None:
            if fold_meanwhile:
                store.fold_published()
            for when, number in looks:
                assert when != "on disk" or self.followers[number].read() == before

        def published() -> None:
            assert store.publication.is_behind()
            if fold_meanwhile:
                store.fold_published()
            for when, number in looks:
                assert when != "published" or self.followers[number].read() == wanted
            nursery.start_soon(seen_by_the_owner)

        async def seen_by_the_owner() -> None:
            await store.publication.merged()
            assert self.owner.read() == wanted

        store.on_disk, store.published = on_disk, published
        async with trio.open_nursery() as nursery:
            await self.carry_out(write)
            assert not store.publication.is_behind()
            assert self.owner.read() == wanted
        for when, number in looks:
            assert when != "after" or self.followers[number].read() == wanted

    def note(self, write: Step) -> bool:
        """Have the model take it; False: there is nothing to write."""
        name, *arguments = write
        if name == "events":
            self.model.events(arguments[0])
        elif name == "delete":
            if self.owner.store._audiences.number(arguments[0]) is None:
                return False
            self.model.delete(*arguments)
        elif name == "forget":
            self.model.forget(*arguments)
        elif name == "put":
            held = self.segments.get(arguments[0])
            if held is not None and held[1] == arguments[1]:
                return False
            revision = self.revisions[arguments[0]] = self.revisions.get(arguments[0], 0) + 1
            self.segments[arguments[0]] = (revision, arguments[1])
        elif self.segments.pop(arguments[0], None) is None:
            return False
        return True

    async def carry_out(self, write: Step) -> None:
        name, *arguments = write
        if name == "events":
            await self.owner.store.apply(arguments[0])
        elif name == "delete":
            await self.owner.store.delete_audience(*arguments)
        elif name == "forget":
            await self.owner.store.forget(*arguments)
        elif name == "put":
            await self.owner.catalog.put(arguments[0], SegmentDefinition(arguments[1]), None)
        else:
            await self.owner.catalog.delete(arguments[0], None)


async def _live(world: World, told: Sequence[Step]) -> None:
    waiting = list(told)
    while waiting:
        async with owner(world.path) as begun:
            world.enter(begun)
            while waiting and (step := waiting.pop(0))[0] != "crash":
                await world.take(step)
            world.compare_all()
            world.leave()
    with data_folder(world.path) as folder:
        assert check(folder).differences == []


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=4, max_size=18).map(lambda told: [*FILLED, *told]))
def test_every_process_shows_exactly_what_is_published(told: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_live, World(Path(folder) / "data", _shared()), told, strict_exception_groups=True)


_started: list[Follower] = []


def _shared() -> list[Follower]:
    """The same processes for all examples: starting one takes longer than an example."""
    if not _started:
        _started.extend(Follower() for _ in range(FOLLOWERS))
    return _started


def teardown_module() -> None:
    for follower in _started:
        follower.__exit__(None, None, None)
    _started.clear()
