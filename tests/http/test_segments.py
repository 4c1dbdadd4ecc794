"""The segments API through the edge: its answers, revisions, preconditions."""

import json
from typing import Any

import pytest
import trio

from segmentd.http.exchange import Answer
from segmentd.settings import LimitsSettings, PassthroughSettings
from tests.http.world import PRIVATE, World, definition, header, read, settings_with

BODY = json.dumps(definition()).encode()
PATH = "/v3/segments/gold"


async def put(world: World, body: Any = None, method: str = "PUT", path: str = PATH, **headers: str) -> Answer:
    sent = {**PRIVATE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await world.ask(method, path, sent, json.dumps(definition() if body is None else body).encode())


async def ask(world: World, method: str, path: str = PATH, **headers: str) -> Answer:
    sent = {**PRIVATE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await world.ask(method, path, sent)


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_new_segment_is_201_and_then_200(world: World, method: str) -> None:
    created = await put(world, method=method)
    assert (created.status, read(created)) == (201, {"revision": 1})
    assert header(created, "etag") == '"1"'
    assert header(created, "location") == PATH
    again = await put(world, method=method)
    assert (again.status, read(again)) == (200, {"revision": 1})
    changed = await put(world, definition("other"), method=method)
    assert (changed.status, read(changed)) == (200, {"revision": 2})
    assert header(changed, "location") is None


async def test_a_segment_is_shown_as_it_was_written(world: World) -> None:
    await put(world, definition(metadata={"team": "a"}))
    answer = await ask(world, "GET")
    assert (answer.status, header(answer, "etag")) == (200, '"1"')
    assert read(answer) == {
        "revision": 1,
        "description": "People.",
        "metadata": {"team": "a"},
        "definition": {"external": {"external_audience_id": "audience_1"}},
    }


async def test_what_was_read_may_be_written_back(world: World) -> None:
    await put(world)
    answer = await world.ask("PUT", PATH, PRIVATE, (await ask(world, "GET")).body)
    assert (answer.status, read(answer)) == (200, {"revision": 1})


async def test_ids_are_listed_sorted(world: World) -> None:
    assert read(await ask(world, "GET", "/v3/segments")) == {"segment_ids": []}
    for name in ("silver", "bronze", "gold"):
        await put(world, path=f"/v3/segments/{name}")
    assert read(await ask(world, "GET", "/v3/segments")) == {"segment_ids": ["bronze", "gold", "silver"]}


async def test_deleting_answers_with_what_remains_and_the_revision_goes_on(world: World) -> None:
    await put(world)
    await put(world, path="/v3/segments/silver")
    answer = await ask(world, "DELETE")
    assert (answer.status, read(answer)) == (200, {"segment_ids": ["silver"]})
    assert (await ask(world, "GET")).status == 404
    created = await put(world)
    assert (created.status, read(created)) == (201, {"revision": 2})


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_segment_is_404(world: World, method: str) -> None:
    answer = await ask(world, method, x_request_id="mine")
    assert answer.status == 404
    assert read(answer) == {"status": 404, "request_id": "mine", "message": "Segment not found."}


@pytest.mark.parametrize(
    "path", ["/v3/segments/GOLD", "/v3/segments/%67old", "/v3/segments/gold/", "/v3/segments/Gold"]
)
async def test_ids_are_compared_in_lower_case_decoded_and_without_a_trailing_slash(world: World, path: str) -> None:
    await put(world, path=path)
    assert list(world.catalog.segments) == ["gold"]
    assert (await ask(world, "GET", path)).status == 200


@pytest.mark.parametrize(
    "path", ["/v3/segments/gold:validate", "/v3/segments/gold%3Avalidate", "/v3/segments/gold:validate/"]
)
async def test_validate_writes_nothing(world: World, path: str) -> None:
    answer = await world.ask("POST", path, PRIVATE, BODY)
    assert (answer.status, read(answer)) == (200, {})
    assert not world.catalog.segments


async def test_validate_names_what_is_wrong(world: World) -> None:
    body = json.dumps({"definition": {"behavioral": {}}}).encode()
    answer = await world.ask("POST", f"{PATH}:validate", PRIVATE, body)
    assert (answer.status, read(answer)["field"]) == (400, "definition")
    assert "Only `external` definitions" in read(answer)["message"]


@pytest.mark.parametrize(
    ("if_match", "status"),
    [('"1"', 200), ('"7", "1"', 200), ("*", 200), ('"7"', 412), ('W/"1"', 412), ("1", 400), ("", 400)],
)
async def test_if_match_guards_update_and_deletion(world: World, if_match: str, status: int) -> None:
    for method in ("PUT", "DELETE"):
        world.catalog.table = World().catalog.table
        await put(world)
        before = world.state()
        answer = await put(world, definition("other"), method=method, if_match=if_match)
        assert answer.status == status
        assert (world.state() == before) == (status != 200)
        if status == 412:
            assert read(answer)["message"] == "If-Match names another revision: the present revision is 1."


@pytest.mark.parametrize("if_match", ['"1"', "*"])
async def test_if_match_never_creates(world: World, if_match: str) -> None:
    answer = await put(world, if_match=if_match)
    assert answer.status == 412
    assert not world.catalog.segments


async def test_if_none_match_any_creates_only(world: World) -> None:
    assert (await put(world, if_none_match="*")).status == 201
    before = world.state()
    answer = await put(world, definition("other"), if_none_match="*")
    assert (answer.status, read(answer)["reason"]) == (412, "ALREADY_EXISTS")
    assert world.state() == before


async def test_of_two_who_create_at_once_with_if_none_match_one_wins(world: World) -> None:
    statuses: list[int] = []

    async def create(audience_id: str) -> None:
        statuses.append((await put(world, definition(audience_id), if_none_match="*")).status)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(create, f"audience_{number}")
    assert sorted(statuses) == [201, 412, 412, 412, 412]


@pytest.mark.parametrize(
    ("if_none_match", "status"), [('"1"', 304), ('W/"1"', 304), ('"0", "1"', 304), ("*", 304), ('"2"', 200)]
)
async def test_if_none_match_saves_the_body(world: World, if_none_match: str, status: int) -> None:
    await put(world)
    answer = await ask(world, "GET", if_none_match=if_none_match)
    assert answer.status == status
    assert header(answer, "etag") == '"1"'
    assert bool(answer.body) == (status == 200)


async def test_too_many_segments_are_refused_with_the_limit() -> None:
    world = World(settings_with(limits=LimitsSettings(segments_max=1)))
    await put(world)
    answer = await put(world, path="/v3/segments/silver")
    assert answer.status == 400
    assert "[limits] segments_max" in read(answer)["message"]
    assert list(world.catalog.segments) == ["gold"]


@pytest.mark.parametrize("path", [PATH, f"{PATH}:validate"])
async def test_passthrough_off_names_the_setting(path: str) -> None:
    world = World(settings_with(passthrough=PassthroughSettings(enabled=False)))
    answer = await world.ask("POST", path, PRIVATE, BODY)
    assert answer.status == 403
    assert "[passthrough] enabled = true" in read(answer)["message"]
    assert not world.catalog.segments
