"""Members in GraphQL: pages for private keys, a clear error for all others."""

from typing import Any

import httpx

from tests.members.service import TS, event, segment, send
from tests.serverprocess import ServerProcess

QUERY = """query($first: Int, $after: String) { audience(name: "s") { name members(first: $first, after: $after) {
  edges { cursor node { identifier value qualified_at source } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount } } }"""


def ask(client: httpx.Client, query: str = QUERY, **variables: Any) -> Any:
    answer = client.post("/v3/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_pages_of_members_have_everybody_who_was_acknowledged(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", ("fs_user_id", f"u-{number}", TS + 0.5)) for number in range(5)])
    found, after = [], None
    for expected_more in (True, True, False):
        body = ask(client, first=2, after=after)
        assert "errors" not in body
        connection = body["data"]["audience"]["members"]
        page = connection["pageInfo"]
        assert (page["hasNextPage"], page["hasPreviousPage"]) == (expected_more, after is not None)
        assert page["endCursor"] == connection["edges"][-1]["cursor"]
        assert connection["totalCount"] == 5
        found += [edge["node"] for edge in connection["edges"]]
        after = page["endCursor"]
    assert found == [
        {"identifier": "fs_user_id", "value": f"u-{number}", "qualified_at": TS + 0.5, "source": "event"}
        for number in range(5)
    ]


def test_a_write_is_seen_by_the_next_page(client: httpx.Client) -> None:
    segment(client, "s", "red")
    for number in range(5):
        send(client, [event("red", ("fs_user_id", f"u-{number}", TS))])
        assert ask(client)["data"]["audience"]["members"]["totalCount"] == number + 1


def test_a_public_key_sees_the_segment_and_an_error_instead_of_members(
    server: ServerProcess, client: httpx.Client
) -> None:
    segment(client, "s", "red")
    with server.client(server.public_key) as public:
        body = ask(public)
    assert body["data"] == {"audience": {"name": "s", "members": None}}
    (error,) = body["errors"]
    assert error["path"] == ["audience", "members"]
    assert error["extensions"] == {"code": "FORBIDDEN", "classification": "DataFetchingException"}


def test_bad_pages_are_told(client: httpx.Client) -> None:
    segment(client, "s", "red")
    for variables, code in (
        ({"first": -1}, "INVALID_ARGUMENT"),
        ({"first": 1_001}, "INVALID_ARGUMENT"),
        ({"after": "x"}, "INVALID_CURSOR"),
    ):
        (error,) = ask(client, **variables)["errors"]
        assert error["extensions"]["code"] == code


def test_members_of_many_audiences_at_once_cost_too_much(client: httpx.Client) -> None:
    for number in range(20):
        segment(client, f"s{number}", "red")
    query = "{ audiences { edges { node { members(first: 1000) { edges { node { value identifier source } } } } } } }"
    body = ask(client, query)
    assert body["errors"][0]["extensions"]["code"] == "QUERY_TOO_EXPENSIVE"
