"""What kept documents weigh: one with a plan is nothing to the garbage collector, trees have a bound of their own."""

import gc
from collections import Counter
from typing import Any
from unittest import mock

import pytest
from graphql import parse

from segmentd.graphql import documents, engine
from segmentd.graphql.documents import count_nodes
from segmentd.graphql.engine import GraphQLRequest
from tests.graphql.fakes import World, shop
from tests.graphql.test_documents import cache_of

LEAVES = "name state revision description is_ready size metadata external_audience_id qualified_at updated_at"
VARIABLES = {"user": "u-1", "names": ["a", "b"]}


def planned(number: int) -> str:
    """A text of some twenty fields that has a plan."""
    return (
        f"query Q{number}($user: String, $names: [String]) {{c{number}: customer(fs_user_id: $user) "
        f"{{audiences(subset: $names) {{totalCount pageInfo {{hasNextPage endCursor}} "
        f"edges {{cursor node {{{LEAVES}}}}} e: edges {{node {{n: name}}}}}}}}}}"
    )


def pasted(number: int) -> str:
    """One with literals in its text."""
    return f'{{c{number}: customer(fs_user_id: "u-1") {{audiences(subset: ["a", "b"], first: 2) {{totalCount}}}}}}'


def unplanned(number: int) -> str:
    """A text that the executor answers."""
    return f"{{x{number}: audiences {{totalCount @skip(if: false)}}}}"


def tracked() -> int:
    """How many objects a full collection looks at, when it has let go of what needs no look."""
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


@pytest.mark.parametrize("text", [planned, pasted])
def test_a_document_with_a_plan_is_next_to_nothing_to_the_garbage_collector(text: Any) -> None:
    world = shop()
    count = 100
    assert world.ask(text(count), VARIABLES).planned
    before = tracked()
    for number in range(count):
        assert world.ask(text(number), VARIABLES).planned
    # None in Python 3.11. A dictionary or two may be looked at by other versions, a closure for each field may not.
    assert (tracked() - before) / count <= 4
    assert len(world.engine._documents) == count + 1


def test_a_document_without_a_plan_is_an_object_or_two_for_each_node() -> None:
    cache = cache_of(200)
    nodes = count_nodes(parse(unplanned(0), no_location=True))
    before = tracked()
    for number in range(100):
        cache.prepare(unplanned(number))
    assert nodes <= (tracked() - before) / 100 <= 2 * nodes


def test_nodes_are_what_the_parser_made() -> None:
    # Document, operation, two sets of selections, two fields and their names, the argument, its name and its value.
    assert count_nodes(parse('{audience(name: "a") {size}}')) == 11


def trees_kept(nodes_max: int, texts: list[str]) -> list[bool]:
    """Whether each of the texts is still there after all of them have come."""
    cache = cache_of(100, nodes_max)
    first = [cache.prepare(text).document for text in texts]
    with mock.patch.object(documents, "parse", wraps=parse) as parsed:
        kept = []
        for text, document in reversed(list(zip(texts, first, strict=True))):
            before = parsed.call_count
            kept.append(cache.prepare(text).document is document and parsed.call_count == before)
    return kept[::-1]


def test_trees_are_kept_up_to_their_bound_and_the_latest_ones_stay() -> None:
    nodes = count_nodes(parse(unplanned(0)))
    texts = [unplanned(number) for number in range(5)]
    assert trees_kept(5 * nodes, texts) == [True] * 5
    assert trees_kept(3 * nodes, texts)[-3:] == [True] * 3
    assert trees_kept(3 * nodes, texts)[:2] == [False] * 2


def test_a_tree_that_is_used_stays_and_the_least_recently_used_one_goes() -> None:
    nodes = count_nodes(parse(unplanned(0)))
    cache = cache_of(100, 2 * nodes)
    hot = cache.prepare(unplanned(0)).document
    for number in range(1, 5):
        cache.prepare(unplanned(number))
        assert cache.prepare(unplanned(0)).document is hot
    assert len(cache) == 2


def test_trees_drive_out_no_document_with_a_plan() -> None:
    cache = cache_of(100, 2 * count_nodes(parse(unplanned(0))))
    plans = [cache.prepare(planned(number)).document for number in range(3)]
    for number in range(20):
        cache.prepare(unplanned(number))
    assert all(cache.prepare(planned(number)).document is plans[number] for number in range(3))
    assert len(cache) == 5


def test_a_tree_beyond_the_bound_is_used_and_not_kept() -> None:
    cache = cache_of(100, count_nodes(parse(unplanned(0))))
    hot = cache.prepare(unplanned(0)).document
    assert cache.prepare("{audiences {totalCount @skip(if: false) edges {cursor}}}").document.tree is not None
    assert cache.prepare(unplanned(0)).document is hot
    assert len(cache) == 1


def test_what_leaves_by_one_bound_is_no_weight_to_the_other() -> None:
    """A tree that had to go as one entry too many makes room for another one."""
    nodes = count_nodes(parse(unplanned(0)))
    cache = cache_of(2, 2 * nodes)
    for number in range(6):
        cache.prepare(unplanned(number))
        cache.prepare(planned(number))
    kept = cache.prepare(unplanned(6)).document
    assert cache.prepare(unplanned(6)).document is kept
    assert len(cache) == 2


def test_without_plans_every_document_keeps_its_tree() -> None:
    document = cache_of(8, plans=False).prepare(planned(0)).document
    assert document.plan is None
    assert document.tree is not None
    assert document.nodes == count_nodes(document.tree)


@pytest.mark.parametrize(
    ("variables", "kind", "parsed"),
    [
        (VARIABLES, "success", 0),
        ({"user": "u-1", "names": ["a", None]}, "success", 1),
        ({"user": "u-1", "names": [5]}, "request_error", 1),
        ({}, "field_errors", 1),
    ],
)
def test_a_text_is_parsed_again_only_where_its_plan_does_not_answer(
    variables: dict[str, Any], kind: str, parsed: int
) -> None:
    world = shop()
    world.ask(planned(0), VARIABLES)
    counts = Counter[str]()
    with (
        mock.patch.object(engine, "parse", side_effect=lambda text: counts.update(["parsed"]) or parse(text)),
        mock.patch.object(documents, "parse", side_effect=AssertionError),
        mock.patch.object(documents, "validate", side_effect=AssertionError),
    ):
        answer = world.ask(planned(0), variables)
    assert (answer.kind, counts["parsed"]) == (kind, parsed)


def test_errors_of_a_shared_document_with_a_plan_are_told_from_the_clients_text() -> None:
    world = shop()
    text = 'query($v: Int) {\n  audiences(first: $v, after: "%s") {totalCount}}'
    assert world.ask(text % "czE6YQ", {"v": 1}).planned
    for cursor in ("nope", "nein"):
        (error,) = world.errors(text % cursor, {"v": 1})
        assert error["locations"] == [{"line": 2, "column": 3}]
        assert "literal_" not in error["message"]


@pytest.mark.parametrize(
    ("text", "reads_members", "follower_may_answer"),
    [
        (planned(0), False, False),
        ("{audiences {edges {node {...F}}}} fragment F on Audience {members(first: 1) {totalCount}}", True, False),
        ('{audience(name: "size members") {name}}', False, True),
        ("{size: audiences {members: totalCount}}", False, True),
        ("{audiences {edges {node {size @skip(if: true)}}}}", False, False),
    ],
)
def test_what_is_asked_of_a_document_is_known_when_its_tree_is_gone(
    text: str, reads_members: bool, follower_may_answer: bool
) -> None:
    world = World()
    request = GraphQLRequest(query=text)
    for _ in range(2):
        assert world.engine.reads_members(request, right="private") is reads_members
        assert world.engine.follower_may_answer(request) is follower_may_answer
    assert not world.engine.reads_members(request, right="public")
