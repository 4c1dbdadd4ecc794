"""GraphQL over HTTP through the edge: media types, statuses, malformed parameters, GET."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from segmentd.domain.refusals import StoreUnavailable
from segmentd.http.exchange import Answer, Request
from tests.http.world import PRIVATE, PUBLIC, World, definition, event, header, read

JSON = "application/json"
RESPONSE = "application/graphql-response+json"
QUERY = """query ($id: String, $subset: [String]) {
  customer(fs_user_id: $id) { audiences(subset: $subset) { edges { node { name state } } } } }"""


@pytest.fixture(params=[False, True], ids=["embedded", "awaited"])
def world(request: pytest.FixtureRequest) -> World:
    return World(is_awaited=request.param)


async def post(world: World, parameters: Any, **headers: str) -> Answer:
    sent = {**PUBLIC, "content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    body = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
    return await world.ask("POST", "/v3/graphql", sent, body)


async def get(world: World, accept: str = RESPONSE, **fields: str) -> Answer:
    return await world.ask("GET", f"/v3/graphql?{urlencode(fields)}", {**PUBLIC, "accept": accept})


async def test_what_was_acknowledged_is_seen_by_the_next_query(world: World) -> None:
    await world.ask("PUT", "/v3/segments/gold", PRIVATE, json.dumps(definition()).encode())
    await world.ask("POST", "/v3/events", PUBLIC, json.dumps(event()).encode())
    answer = await post(world, {"query": QUERY, "variables": {"id": "u-17", "subset": ["gold", "unknown"]}})
    assert answer.status == 200
    edges = [{"node": {"name": "gold", "state": "qualified"}}]
    assert read(answer) == {"data": {"customer": {"audiences": {"edges": edges}}}}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESPONSE, RESPONSE),
        (f"{RESPONSE}, {JSON};q=0.9", RESPONSE),
        (f"{RESPONSE};q=0.1, {JSON}", JSON),
        (f"{RESPONSE}; charset=utf-8, application/json; charset=utf-8", JSON),
        (f"{JSON};q=0, */*", RESPONSE),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
    ],
)
async def test_the_answer_has_the_type_that_the_client_wants_most(
    world: World, accept: str | None, expected: str
) -> None:
    headers = {} if accept is None else {"accept": accept}
    answer = await post(world, {"query": "{ __typename }"}, **headers)
    assert answer.status == 200
    assert header(answer, "content-type") == f"{expected}; charset=utf-8"


async def test_a_store_that_cannot_be_reached_is_503_with_the_time_to_wait() -> None:
    world = World(is_awaited=True)
    await world.ask("PUT", "/v3/segments/gold", PRIVATE, json.dumps(definition()).encode())
    world.fake.refusal = StoreUnavailable("The cluster is away.", 3)
    variables = json.dumps({"id": "u-17"})
    for answer in (
        await post(world, {"query": QUERY, "variables": {"id": "u-17"}}),
        await get(world, query=QUERY, variables=variables),
    ):
        assert (answer.status, header(answer, "retry-after")) == (503, "3")
        assert "cluster is away" in read(answer)["errors"][0]["message"]
        assert "data" not in read(answer)
    world.fake.refusal = None
    assert (await post(world, {"query": QUERY, "variables": {"id": "u-17"}})).status == 200


async def test_only_a_store_in_this_process_is_asked_without_a_task() -> None:
    body = json.dumps({"query": QUERY, "variables": {"id": "u-17"}}).encode()
    for is_awaited in (False, True):
        edge = World(is_awaited=is_awaited).app.edge
        request = Request("POST", "/v3/graphql", "", {**PUBLIC, "content-type": JSON}, body)
        answer = edge.answer_at_once(request, edge.find("/v3/graphql"), lambda _: None)
        assert (answer is None) == is_awaited


async def test_a_type_that_is_not_offered_is_406(world: World) -> None:
    answer = await post(world, {"query": "{ __typename }"}, accept="text/html")
    assert answer.status == 406
    assert RESPONSE in read(answer)["errors"][0]["message"]


@pytest.mark.parametrize(
    "query", ["{", "{ unknown }", "query ($id: Int!) { audiences(first: $id) { totalCount } }", "mutation { x }"]
)
async def test_a_document_that_is_not_executed_is_400_or_200_by_media_type(world: World, query: str) -> None:
    for accept, status in ((RESPONSE, 400), (JSON, 200)):
        answer = await post(world, {"query": query}, accept=accept)
        assert answer.status == status
        assert read(answer).keys() == {"errors"}


async def test_a_field_error_is_200_under_both_types(world: World) -> None:
    for accept in (RESPONSE, JSON):
        answer = await post(world, {"query": "{ customer { audiences { edges { cursor } } } }"}, accept=accept)
        assert answer.status == 200
        assert read(answer)["data"] == {"customer": None}
        assert read(answer)["errors"][0]["extensions"]["code"] == "INVALID_IDENTIFIER_EXCEPTION"


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "body"),
        ({"query": 7}, "query"),
        ({"query": None}, "query"),
        ({"query": "{ __typename }", "variables": [1]}, "variables"),
        ({"query": "{ __typename }", "variables": "x"}, "variables"),
        ({"query": "{ __typename }", "operationName": 7}, "operationName"),
        ({"query": "{ __typename }", "extensions": [1]}, "extensions"),
        ([{"query": "{ __typename }"}], "body"),
        (b"", "body"),
        (b'{"query"', "body"),
        (b'{"query": "\xe9"}', "body"),
        (b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "body"),
    ],
)
async def test_malformed_parameters_are_400_and_named(world: World, accept: str, parameters: Any, field: str) -> None:
    answer = await post(world, parameters, accept=accept, x_request_id="mine")
    assert answer.status == 400
    (error,) = read(answer)["errors"]
    assert error["extensions"] == {"code": "INVALID_REQUEST", "request_id": "mine", "field": field}
    assert "data" not in read(answer)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/graphql", "application/json; charset=latin1"])
async def test_a_post_of_another_type_is_415(world: World, content_type: str) -> None:
    answer = await post(world, {"query": "{ __typename }"}, content_type=content_type)
    assert answer.status == 415
    assert read(answer)["errors"][0]["extensions"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


async def test_get_takes_everything_from_the_query_string(world: World) -> None:
    answer = await get(
        world, query=f"query A {{ __typename }} {QUERY.replace('query (', 'query B(')}", operationName="B",
        variables=json.dumps({"id": "nobody"}), extensions="{}"
    )  # fmt: skip
    assert answer.status == 200
    assert read(answer) == {"data": {"customer": {"audiences": {"edges": []}}}}
    assert header(answer, "cache-control") == "no-store"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "query"),
        ({"query": "{ __typename }", "variables": "[1]"}, "variables"),
        ({"query": "{ __typename }", "variables": "{"}, "variables"),
        ({"query": "{ __typename }", "extensions": "7"}, "extensions"),
        ({f"f{number}": "x" for number in range(100)}, "query string"),
    ],
)
async def test_get_names_a_malformed_field(world: World, fields: dict[str, str], field: str) -> None:
    answer = await get(world, **fields)
    assert answer.status == 400
    assert read(answer)["errors"][0]["extensions"]["field"] == field


async def test_get_with_bytes_that_are_no_utf_8_is_400(world: World) -> None:
    answer = await world.ask("GET", "/v3/graphql?query=%ff", PUBLIC)
    assert answer.status == 400
    assert "query string cannot be read" in read(answer)["errors"][0]["message"]


async def test_get_cannot_mutate(world: World) -> None:
    assert (await get(world, query="mutation { __typename }")).status == 400


async def test_many_different_accept_headers_are_served_all_the_same(world: World) -> None:
    for number in range(300):
        answer = await post(world, {"query": "{ __typename }"}, accept=f"{RESPONSE};v={number}, {JSON};q=0.5")
        assert header(answer, "content-type") == f"{RESPONSE}; charset=utf-8"
