"""The whole API × key matrix, asked of a real server: nobody gets in without a key, a public key reads no members."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest
from graphql import GraphQLObjectType

from segmentd import keyfile
from segmentd.keyfile import Right
from tests.hostile.access import FIELDS, NEEDS, PRIVATE
from tests.http.world import World
from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY, ServerProcess

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
REVOKED_SECONDS_MAX = 30.0

# Headers, query and cookies that open nothing; each is tried at every operation that needs a key.
CLOSED: dict[str, tuple[dict[str, str] | list[tuple[str, str]], str]] = {
    "none": ({}, ""),
    "empty": ({"x-api-key": ""}, ""),
    "wrong": ({"x-api-key": "no such key"}, ""),
    "twice": ([("x-api-key", PRIVATE_KEY), ("x-api-key", PRIVATE_KEY)], ""),
    "two": ([("x-api-key", PUBLIC_KEY), ("x-api-key", PRIVATE_KEY)], ""),
    "upper case": ({"x-api-key": PRIVATE_KEY.upper()}, ""),
    "quoted": ({"x-api-key": f'"{PRIVATE_KEY}"'}, ""),
    "beginning": ({"x-api-key": PRIVATE_KEY[:-1]}, ""),
    "more": ({"x-api-key": f"{PRIVATE_KEY}x"}, ""),
    "bearer": ({"authorization": f"Bearer {PRIVATE_KEY}"}, ""),
    "basic": ({"authorization": httpx.BasicAuth(PRIVATE_KEY, "")._auth_header}, ""),
    "api key": ({"api-key": PRIVATE_KEY, "x_api_key": PRIVATE_KEY, "x-forwarded-api-key": PRIVATE_KEY}, ""),
    "cookie": ({"cookie": f"x-api-key={PRIVATE_KEY}"}, ""),
    "query": ({}, f"?x-api-key={PRIVATE_KEY}&api_key={PRIVATE_KEY}&key={PRIVATE_KEY}"),
}
OPERATIONS = [(template, method, needs) for template, of in NEEDS.items() for method, needs in of.items()]
GUARDED = [(template, method, needs) for template, method, needs in OPERATIONS if needs is not None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), {"rates": {"wrong_keys_per_minute": 0}}) as running:
        yield running
        running.terminate()


def concrete(template: str) -> str:
    """A path of this template; what it names is not there."""
    return re.sub(r"\{\w+\}", "absent", template)


def test_every_route_and_method_is_listed_with_the_right_that_it_needs() -> None:
    routes = World().app.edge.routes
    served = {route.template: {method: one.needs for method, one in route.operations.items()} for route in routes}
    assert served == NEEDS


@pytest.mark.parametrize("placement", CLOSED)
def test_what_is_no_key_opens_nothing(server: ServerProcess, placement: str) -> None:
    headers, query = CLOSED[placement]
    with server.client() as client:
        for template, method, _ in GUARDED:
            answer = client.request(method, concrete(template) + query, headers=headers, content=b"[]")
            assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"}), (template, method)


def test_a_revoked_key_opens_nothing(server: ServerProcess) -> None:
    path = keyfile.path_in(server.data)
    _, secret = keyfile.create(path, "private", "leaver")
    deadline = time.monotonic() + REVOKED_SECONDS_MAX
    with server.client(secret) as client:
        while client.get("/v3/segments").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        keyfile.revoke(path, "leaver")
        while client.get("/v3/segments").status_code != 403:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert {client.request(method, concrete(path)).status_code for path, method, _ in GUARDED} == {403}


@pytest.mark.parametrize(("key", "right"), [(PUBLIC_KEY, "public"), (PRIVATE_KEY, "private")])
def test_a_key_opens_what_its_right_allows_and_no_more(server: ServerProcess, key: str, right: Right) -> None:
    with server.client(key) as client:
        for template, method, needs in GUARDED:
            opens = needs == "public" or right == "private"
            answer = client.request(method, concrete(template), content=b"[]")
            assert (answer.status_code != 403) == opens, (template, method, answer.text)
            assert answer.status_code < 500, (template, method, answer.text)


def test_without_a_key_the_open_pages_say_nothing_of_the_data(server: ServerProcess) -> None:
    marks = ("marked-user", "marked_audience", "marked_segment", "marked-description")
    with server.client(PRIVATE_KEY) as client:
        definition = {"description": marks[3], "definition": {"external": {"external_audience_id": marks[1]}}}
        assert client.put(f"/v3/segments/{marks[2]}", json=definition).status_code == 201
        data = {"audience_id": marks[1]}
        event = {"type": "passthrough", "action": "qualify", "identifiers": {"fs_user_id": marks[0]}, "data": data}
        assert client.post("/v3/events", json=event).status_code == 202
    with server.client() as client:
        opened = [client.get(concrete(template)) for template, _, needs in OPERATIONS if needs is None]
    assert sum(answer.status_code == 200 for answer in opened) >= len(opened) - 1, "all but the absent file"
    assert [mark for mark in marks for answer in opened if mark in answer.text] == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_a_path_does_not_have_opens_nothing(server: ServerProcess, method: str) -> None:
    with server.client() as client:
        for template, operations in NEEDS.items():
            if method not in operations and not (method == "HEAD" and "GET" in operations):
                assert client.request(method, concrete(template)).status_code == 405, template


def test_every_graphql_field_is_listed_with_the_right_that_it_needs() -> None:
    types = World().engine.schema.type_map
    objects = {name: of for name, of in types.items() if isinstance(of, GraphQLObjectType) and name[:2] != "__"}
    assert {f"{name}.{field}" for name, of in objects.items() for field in of.fields} == set(FIELDS)


def test_a_public_key_reads_no_member_by_any_way_that_leads_there(server: ServerProcess) -> None:
    segment = {"definition": {"external": {"external_audience_id": "vip"}}}
    data = {"audience_id": "vip"}
    event = {"type": "passthrough", "action": "qualify", "identifiers": {"fs_user_id": "secret-user"}, "data": data}
    with server.client(PRIVATE_KEY) as client:
        client.put("/v3/segments/vip", json=segment)
        assert client.post("/v3/events", json=event).status_code == 202
    below = {name.partition(".")[2] for name, needs in FIELDS.items() if needs == PRIVATE and name[:7] == "Member."}
    members = f"members(first: 5) {{totalCount edges {{cursor node {{{' '.join(sorted(below))}}}}}}}"
    ways = [
        f'{{audience(name: "vip") {{name {members}}}}}',
        f"{{audiences {{edges {{node {{name {members}}}}}}}}}",
        f"{{audiences {{edges {{node {{...M}}}}}}}} fragment M on Audience {{x: {members}}}",
        f"query($n: String!, $s: Boolean = true) {{audience(name: $n) {{... @include(if: $s) {{{members}}}}}}}",
    ]
    for query in ways:
        asked = {"query": query, "variables": {"n": "vip"}}
        shown = {}
        for key in (PUBLIC_KEY, PRIVATE_KEY):
            with server.client(key) as client:
                shown[key] = client.post("/v3/graphql", json=asked)
        assert "secret-user" in shown[PRIVATE_KEY].text
        assert "secret-user" not in shown[PUBLIC_KEY].text
        errors = json.loads(shown[PUBLIC_KEY].text)["errors"]
        assert {error["extensions"]["code"] for error in errors} == {"FORBIDDEN"}
