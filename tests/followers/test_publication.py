"""What the owner shows is never older than what it published: the page, the wait, and the engine's question."""

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from segmentd.graphql.engine import GraphQLRequest
from segmentd.runtime.publication import Publication
from segmentd.storage.visible import Visible
from tests.graphql.fakes import World, shop


def test_a_follower_sees_what_the_owner_publishes_and_cannot_publish_itself() -> None:
    visible, descriptor = Visible.create()
    follower = Visible.of(descriptor)
    assert (follower.get(), follower.nonce) == (0, visible.nonce)
    for record in (1, 2**40):
        visible.publish(record)
        assert follower.get() == record
    with pytest.raises(TypeError):
        follower.publish(3)
    another, its_descriptor = Visible.create()
    assert another.nonce != visible.nonce
    for page in (visible, follower, another):
        page.close()
    os.close(descriptor)
    os.close(its_descriptor)


def test_what_is_no_such_page_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="not the page"):
        Visible.of(reading)
    os.close(reading)
    os.close(writing)


@pytest.fixture
def publication() -> Publication:
    visible, descriptor = Visible.create()
    os.close(descriptor)
    return Publication(visible)


async def test_a_wait_is_for_what_was_published_before_it_began_and_no_more(
    publication: Publication, nursery: trio.Nursery
) -> None:
    waited: list[int] = []

    async def wait(number: int) -> None:
        await publication.merged()
        waited.append(number)

    await wait(0)
    publication.publish(1)
    nursery.start_soon(wait, 1)
    await wait_all_tasks_blocked()
    publication.publish(2)
    nursery.start_soon(wait, 2)
    await wait_all_tasks_blocked()
    assert (waited, publication.is_behind()) == ([0], True)
    publication.shown(1)
    await wait_all_tasks_blocked()
    assert (waited, publication.is_behind()) == ([0, 1], True)
    publication.shown(2)
    await wait_all_tasks_blocked()
    assert (waited, publication.is_behind()) == ([0, 1, 2], False)


async def test_a_wait_is_for_all_that_is_published_in_whatever_order_it_is_merged(
    publication: Publication, nursery: trio.Nursery
) -> None:
    publication.publish(1)
    publication.publish(2)
    done = trio.Event()

    async def wait() -> None:
        await publication.merged()
        done.set()

    nursery.start_soon(wait)
    publication.shown(2)
    await wait_all_tasks_blocked()
    assert not done.is_set()
    publication.shown(1)
    await done.wait()


async def test_without_followers_nothing_is_ever_behind() -> None:
    publication = Publication(None)
    publication.publish(1)
    assert (publication.is_behind(), publication.record) == (False, 1)
    await publication.merged()
    publication.shown(1)


def asked(world: World, query: str) -> bool:
    return world.engine.follower_may_answer(GraphQLRequest(query=query))


@pytest.mark.parametrize(
    ("query", "may"),
    [
        ('{customer(email: "a") {audiences {edges {node {name state metadata}}}}}', True),
        ('{customer(email: "size") {audiences(subset: ["members"]) {edges {node {name}}}}}', True),
        ("{__schema {types {name}} __typename audiences {totalCount}}", True),
        ('{customer(email: "a") {audiences {edges {node {name size}}}}}', False),
        ('{customer(email: "a") {audiences {edges {node {n: size}}}}}', False),
        ("query {audiences {edges {node {...f}}}} fragment f on Audience {size}", False),
        ('{audience(name: "a") {members {totalCount}}}', False),
        ('query a {__typename} query b {audience(name: "a") {size}}', False),
        ("{no_such_field {size}}", True),
        ("{size", True),
    ],
)
def test_a_follower_answers_what_neither_counts_nor_lists_members(query: str, may: bool) -> None:
    assert asked(shop(), query) is may


def test_every_field_but_these_two_is_answered_without_counting() -> None:
    world = shop()
    count = world.store.size

    def counting(audience: str) -> int:
        raise AssertionError(f"{audience} was counted")

    world.store.size = counting  # type: ignore[method-assign]
    fields = [name for name in world.engine.schema.type_map["Audience"].fields if name not in {"size", "members"}]  # type: ignore[attr-defined]
    assert len(fields) > 5
    nodes = " ".join(f"{name} {{__typename}}" if name == "definition" else name for name in fields)
    document = f'{{audiences {{totalCount edges {{cursor node {{{nodes}}}}}}} audience(name: "a") {{{nodes}}}}}'
    assert asked(world, document)
    assert len(world.data(document)["audiences"]["edges"]) == 3
    world.store.size = count  # type: ignore[method-assign]
