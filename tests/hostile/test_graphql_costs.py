"""Queries that cost much: each ends after bounded work, counted in calls and not in seconds, with its reason."""

import json
import sys
from types import FrameType
from typing import Any

import pytest

from segmentd.graphql.engine import GraphQLRequest
from tests.graphql.fakes import World as Shop
from tests.graphql.fakes import shop
from tests.http.world import PUBLIC, World, read

# A full introspection, which is allowed, takes most: some hundred thousand Python calls.
CALLS_MAX = 2_000_000

ATTACKS: dict[str, tuple[str, dict[str, Any] | None, str]] = {
    "aliases": ("{" + "".join(f"a{n}: __typename " for n in range(2_000)) + "}", None, "TOO_MANY"),
    "deep": ("{audiences {edges {node " * 500 + "}" * 1_500, None, "QUERY_TOO_DEEP"),
    "open brackets": ("{" * 60_000, None, "QUERY_TOO_DEEP"),
    "open lists": ("{customer(fs_user_id: " + "[" * 30_000, None, "QUERY_TOO_DEEP"),
    "a cycle": ("{...A} fragment A on Query {...B} fragment B on Query {...A}", None, "VALIDATION_ERROR"),
    "a cycle of itself": ("{...A} fragment A on Query {__typename ...A}", None, "VALIDATION_ERROR"),
    "fragments that double": (
        "{...F0} "
        + "".join(f"fragment F{n} on Query {{...F{n + 1} ...F{n + 1} x{n}: __typename}} " for n in range(60))
        + "fragment F60 on Query {__typename}",
        None,
        "",
    ),
    "the same field again": ("{audiences {" + "totalCount " * 1_400 + "}}", None, "EXPENSIVE"),
    "directives": ("{__typename " + "@include(if: true) " * 1_000 + "}", None, "TOO_MANY_TOKENS"),
    "unknown directives": ("{__typename " + "@x" * 700 + "}", None, "VALIDATION_ERROR"),
    "a huge page": ("{audiences(first: 2147483647) {edges {node {name}}}}", None, ""),
    "a huge number": ("{audiences(first: 99999999999999999999) {totalCount}}", None, "VALIDATION_ERROR"),
    "introspection bomb": (
        "{__schema {types {fields {type {fields {type {fields {type {fields {type {name}}}}}}}}}}}",
        None,
        "introspection depth",
    ),
    "introspection deep": ("{__schema {types " + "{ofType " * 100 + "{name}" + "}" * 101, None, "DEEP"),
    "a long text": ('{customer(fs_user_id: "' + "u" * 60_000 + '") {audiences {totalCount}}}', None, ""),
    "escapes": ('{customer(fs_user_id: "' + "\\u0041" * 10_000 + '") {audiences {totalCount}}}', None, ""),
    "comments": ("#\n" * 30_000 + "{__typename}", None, "TOO_MANY_TOKENS"),
    "a huge subset": (
        'query($a: [String]) {customer(fs_user_id: "u-1") {audiences(subset: $a) {edges {node {name}}}}}',
        {"a": ["a"] * 60_000},
        "EXPENSIVE",
    ),
    "deep variables": (
        'query($a: [String]) {customer(fs_user_id: "u-1") {audiences(subset: $a) {totalCount}}}',
        {"a": json.loads("[" * 400 + "]" * 400)},
        "INVALID_VARIABLES",
    ),
    "many unused variables": ("{__typename}", {f"v{n}": n for n in range(20_000)}, ""),
    "many operations": ("".join(f"query Q{n} {{__typename}} " for n in range(250)), None, "UNKNOWN_OPERATION"),
}


def calls_of(world: Shop, query: str, variables: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
    """How many Python functions were called for one answer, and the answer."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    request = GraphQLRequest(query=query, variables=variables)
    sys.setprofile(count)
    try:
        answer = world.engine.execute(request, right="public")
    finally:
        sys.setprofile(None)
    return calls, answer.body


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_takes_a_bounded_amount_of_work_and_is_told_why(attack: str) -> None:
    query, variables, reason = ATTACKS[attack]
    calls, body = calls_of(shop(), query, variables)
    assert calls < CALLS_MAX
    assert ("errors" in body) == bool(reason)
    if reason:
        told = json.dumps(body["errors"])
        assert reason in told, told[:500]
        assert len(told) < 50_000, "a small question has no huge answer"
    assert "INTERNAL" not in json.dumps(body)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"query":"{__typename}"}]',
        b"[" + b'{"query":"{__typename}"},' * 1_000 + b'{"query":"{__typename}"}]',
        b'{"query":["{__typename}"]}',
        b'{"query":"{__typename}","variables":[]}',
        b'{"query":"{__typename}","variables":' + b"[" * 100_000,
        b'{"query":"{__typename}","extensions":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
        b'{"query":' + b"1" * 200_000 + b"}",
    ],
    ids=["batch", "large batch", "list", "variables", "deep variables", "deep extensions", "digits"],
)
async def test_a_batch_or_a_body_of_another_shape_is_refused_as_a_whole(body: bytes) -> None:
    answer = await World().ask("POST", "/v3/graphql", {**PUBLIC, "content-type": "application/json"}, body)
    assert answer.status == 400
    assert read(answer)["errors"]
    assert len(answer.body) < 2_000
