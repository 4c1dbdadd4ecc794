"""Events, lists, deletions, forgettings and segments in any order, on any node, against a model; for both stores.

Whatever is acknowledged on one node is seen by the next look on every other one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentd.domain.refusals import SegmentNotFound
from segmentd.domain.segments import SegmentDefinition
from tests.cluster.worlds import Node, World, opened
from tests.forgetting.test_model import Model as Memberships
from tests.runtime.world import change, sizes_of

KEYS = [b"\0" + name for name in (b"ann", b"bob", b"\xc3\xa9{x}", b"dan")]
AUDIENCES = ["red", "green"]
SEGMENTS = ["s", "t"]
LATE_MS = 1_000
"""When lists are taken: after everything that is forgotten."""

Step = tuple[Any, ...]
TIMES = st.integers(1, 9)
CHANGES = st.builds(change, st.sampled_from(KEYS), st.sampled_from(AUDIENCES), TIMES, st.booleans())
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("events"), st.lists(CHANGES, min_size=1, max_size=4)),
    st.tuples(st.just("events"), st.lists(CHANGES, min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(AUDIENCES), TIMES),
    st.tuples(st.just("forget"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True), TIMES),
    st.tuples(st.just("list"), st.sampled_from(AUDIENCES), st.sets(st.sampled_from(KEYS), min_size=1), TIMES),
    st.tuples(st.just("put"), st.sampled_from(SEGMENTS), st.sampled_from(AUDIENCES)),
    st.tuples(st.just("remove"), st.sampled_from(SEGMENTS)),
    st.tuples(st.just("wait")),
)


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster = request.getfixturevalue("cluster") if request.param == "cluster" else None
    if cluster is not None:
        cluster.wait_whole()
        cluster.flush()
    with opened(request.param, cluster, tmp_path_factory.mktemp("world")) as world:
        yield world


class Model(Memberships):
    """With lists, segments, and names that are those of one example."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()
        self.segments: dict[str, tuple[int, str]] = {}
        self.revisions: dict[str, int] = {}

    def events(self, listed: Any) -> None:
        super().events(listed)
        self.known.update(audience for _, audience, _ in listed)

    def delete(self, audience: str, now_ms: int) -> None:
        if audience in self.known:
            super().delete(audience, now_ms)
            self.known.discard(audience)

    def whole_list(self, audience: str, keys: set[bytes], as_of_ms: int) -> bool:
        v = 2 * as_of_ms
        if self._floors.get(audience, 0) > v:
            return False
        self.known.add(audience)
        self._floors[audience] = v
        for key in keys:
            if as_of_ms > self._forgotten.get(key, -1):
                self.state[key, audience] = max(v, self.state.get((key, audience), v))
        for (key, of), now in list(self.state.items()):
            if of == audience and key not in keys and now < v and now % 2 == 0:
                self.state[key, of] = v - 1
        return True

    def put(self, segment: str, audience: str) -> None:
        if self.segments.get(segment, (0, ""))[1] != audience:
            self.revisions[segment] = self.revisions.get(segment, 0) + 1
            self.segments[segment] = self.revisions[segment], audience


async def take(node: Node, model: Model, step: Step, folder: Path) -> None:
    name, *arguments = step
    if name == "events":
        await node.store.apply(arguments[0])
        model.events(arguments[0])
    elif name == "delete":
        deletion = await node.store.delete_audience(*arguments)
        assert (deletion is not None) == (arguments[0] in model.known)
        model.delete(*arguments)
        if deletion is not None:
            assert await node.store.deletion(deletion.number) is not None
    elif name == "forget":
        await node.store.forget(*arguments)
        model.forget(*arguments)
    elif name == "list":
        audience, keys, as_of_ms = arguments
        done = await node.whole_list(audience, sorted(keys), as_of_ms, LATE_MS, folder)
        assert done == model.whole_list(audience, keys, as_of_ms)
    elif name == "put":
        await node.catalog.put(arguments[0], SegmentDefinition(arguments[1]), None)
        model.put(*arguments)
    elif name == "remove":
        if arguments[0] in model.segments:
            await node.catalog.delete(arguments[0], None)
            del model.segments[arguments[0]]
        else:
            with pytest.raises(SegmentNotFound):
                await node.catalog.delete(arguments[0], None)
    else:
        await trio.sleep(0.3)


async def compare(node: Node, model: Model, keys: list[bytes], audiences: list[str]) -> None:
    held = {key: await node.store.memberships_of(key) for key in keys}
    assert {(key, audience): v for key, found in held.items() for audience, v in found.items()} == model.state
    assert {audience: await node.size(audience) for audience in audiences} == sizes_of(model.state, audiences)
    for key in keys:
        assert await node.versions(key, *audiences) == [model.state.get((key, audience)) for audience in audiences]
    for audience in audiences:
        members = sorted((key, v) for (key, of), v in model.state.items() if of == audience and v % 2 == 0)
        assert await node.members(audience) == members


def renamed(step: Step, suffix: str) -> Step:
    """The step with the names of one example."""

    def name(value: Any) -> Any:
        if isinstance(value, bytes):
            return value + suffix.encode()
        if isinstance(value, str):
            return value + suffix
        if isinstance(value, list | set | tuple):
            return type(value)(map(name, value))
        return value

    return (step[0], *map(name, step[1:]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(told=st.lists(st.tuples(st.integers(0, 1), STEPS), min_size=1, max_size=12))
def test_what_one_node_acknowledges_every_node_shows(
    world: World, tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, Step]]
) -> None:
    suffix = world.fresh()
    folder = tmp_path_factory.mktemp("list")
    model = Model()
    keys = [key + suffix.encode() for key in KEYS]
    audiences = [audience + suffix for audience in AUDIENCES]

    async def live() -> None:
        for chosen, step in told:
            node = world.nodes[chosen % len(world.nodes)]
            await take(node, model, renamed(step, suffix), folder)
            await compare(world.nodes[-1 - chosen % len(world.nodes)], model, keys, audiences)
            shown = {
                segment.segment_id: (segment.revision, segment.definition.external_audience_id)
                for segment in node.catalog.segments.values()
                if segment.segment_id.endswith(suffix)
            }
            if step[0] in {"put", "remove"}:
                assert shown == model.segments
        for node in world.nodes:
            await compare(node, model, keys, audiences)

    world.run(live)
