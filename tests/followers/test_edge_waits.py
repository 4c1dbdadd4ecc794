"""At the edge: what shows the store's state waits for what followers show already; what does not goes on."""

import json
import os
from collections.abc import Awaitable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from segmentd.http.exchange import Answer, Request
from segmentd.runtime.publication import Publication
from segmentd.storage.visible import Visible
from tests.http.world import World, event

PRIVATE = {"x-api-key": "test-private", "content-type": "application/json"}
QUERY = json.dumps({"query": "{audiences {totalCount}}"}).encode()


@pytest.fixture
def publication() -> Publication:
    visible, descriptor = Visible.create()
    os.close(descriptor)
    return Publication(visible)


@pytest.fixture
def world(publication: Publication) -> World:
    made = World()
    made.app.edge._published = publication
    return made


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v3/graphql", QUERY),
        ("GET", "/v3/graphql?query=%7B__typename%7D", b""),
        ("GET", "/v3/segments", b""),
        ("GET", "/v3/segments/a", b""),
    ],
)
async def test_an_answer_that_shows_the_state_comes_after_the_merge(
    world: World, publication: Publication, nursery: trio.Nursery, method: str, path: str, body: bytes
) -> None:
    answered: list[int] = []

    async def ask() -> None:
        answered.append((await world.ask(method, path, PRIVATE, body)).status)

    publication.publish(1)
    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert not answered
    publication.shown(1)
    await wait_all_tasks_blocked()
    assert len(answered) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/v3/events", json.dumps(event()).encode()), ("GET", "/healthz", b""), ("GET", "/metrics", b"")],
)
async def test_what_shows_nothing_of_it_does_not_wait(
    world: World, publication: Publication, method: str, path: str, body: bytes
) -> None:
    publication.publish(1)
    answer: Awaitable[Any] = world.ask(method, path, PRIVATE, body)
    with trio.fail_after(30):
        assert (await answer).status in {200, 202}


def test_at_once_is_answered_only_what_need_not_wait(world: World, publication: Publication) -> None:
    answers: list[Answer] = []

    def ask() -> object:
        request = Request("POST", "/v3/graphql", "", dict(PRIVATE), QUERY)
        return world.app.edge.answer_at_once(request, world.app.edge.find("/v3/graphql"), answers.append)

    assert ask() is not None
    publication.publish(1)
    assert ask() is None
    publication.shown(1)
    assert ask() is not None
