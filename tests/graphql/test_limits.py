"""Limits: what asks for too much is refused before it costs anything, what is usual passes."""

import contextlib
import json
import sys
from typing import Any

import pytest
from graphql import GraphQLSyntaxError, Lexer, Source, TokenKind, get_introspection_query
from hypothesis import given
from hypothesis import strategies as st

from segmentd.graphql.limits import DocumentLimits, scan
from tests.graphql.fakes import World, shop


def many_segments(count: int, **settings: Any) -> World:
    world = World(**settings)
    for number in range(count):
        world.catalog.define(f"s{number:04}", f"A{number}")
    return world


def refused(world: World, query: str, code: str, setting: str, variables: dict[str, Any] | None = None) -> None:
    answer = world.ask(query, variables)
    assert answer.kind == "request_error"
    (error,) = answer.body["errors"]
    assert error["extensions"] == {"code": code, "classification": "ExecutionAborted"}
    assert setting in error["message"]


def test_the_size_of_a_document_is_bounded_in_bytes() -> None:
    world = World(document_bytes_max=1_024)
    query = "{audiences {totalCount}}"
    assert world.data(query + " " * (1_024 - len(query)))
    refused(world, query + " " * (1_025 - len(query)), "DOCUMENT_TOO_LARGE", "document_bytes_max")
    refused(world, query + "# " + "é" * 600, "DOCUMENT_TOO_LARGE", "document_bytes_max")


def test_long_literals_count_also_where_the_outline_is_known() -> None:
    world = World(document_bytes_max=1_024)
    assert world.data('{audience(name: "a") {name}}') == {"audience": None}
    refused(world, f'{{audience(name: "{"a" * 2_000}") {{name}}}}', "DOCUMENT_TOO_LARGE", "document_bytes_max")


def test_the_number_of_tokens_is_bounded_comments_included() -> None:
    world = World(tokens_max=100)
    refused(world, "{audiences {" + "totalCount " * 100 + "}}", "TOO_MANY_TOKENS", "tokens_max")
    refused(world, "#\n" * 101 + "{audiences {totalCount}}", "TOO_MANY_TOKENS", "tokens_max")


def test_strings_and_block_strings_are_one_token_each() -> None:
    world = World(tokens_max=100)
    text = f"query {{x: audience(name: {json.dumps('{[(:' * 200)}) {{name}}}}"
    assert world.data(text) == {"x": None}
    assert world.data('{x: audience(name: """ {{{{ " "" \\""" :::: """) {name}}') == {"x": None}


@pytest.mark.parametrize("depth", [30, 1_000, 30_000])
@pytest.mark.parametrize("opening", ["{a", "{a(x:[", "{...on Query", "{a(x:{y:", "("])
def test_a_deeply_nested_text_is_refused_before_it_is_parsed(opening: str, depth: int) -> None:
    world = World(document_bytes_max=1_000_000, tokens_max=1_000_000)
    refused(world, opening * depth, "QUERY_TOO_DEEP", "depth_max")


SOUP = st.lists(
    st.sampled_from([*'"\\\n\r#{}(: ,5', '""', '"""', '\\"""', "...", "..", "a_1", "-1.5e3"]) | st.text(max_size=2),
    max_size=30,
).map("".join)


@given(SOUP)
def test_the_scanner_never_counts_fewer_tokens_than_the_lexer_meets(text: str) -> None:
    lexer = Lexer(Source(text))
    met = 0
    with contextlib.suppress(GraphQLSyntaxError):
        while lexer.advance().kind is not TokenKind.EOF:
            met += 1
    assert scan(text, DocumentLimits(1_000, 1_000, 1_000, 1_000, 1_000)) >= met


@pytest.mark.parametrize("text", ['"\\', '"""\\"""', '"', '"""', '"\n', '""" "'])
def test_unfinished_literals_are_a_syntax_error_or_too_many_tokens(text: str) -> None:
    # With a scanner that tries again at every quotation mark this would not end for hours.
    world = World(document_bytes_max=10_000_000)
    assert world.code("{audience(name: " + text * 1_000_000) in {"INVALID_SYNTAX", "TOO_MANY_TOKENS"}


def test_the_depth_of_fields_is_bounded_through_fragments_too() -> None:
    deep = "{__schema {types {...A}}} fragment A on __Type {ofType {...B}} fragment B on __Type {ofType {name}}"
    assert World(depth_max=5).data(deep)
    refused(World(depth_max=4), deep, "QUERY_TOO_DEEP", "depth_max")


def test_a_long_chain_of_fragments_is_an_error_and_not_a_crash() -> None:
    chain = "".join(f"fragment F{n} on Query {{...F{n + 1}}} " for n in range(600))
    answer = World().ask(f"{{...F0}} {chain} fragment F600 on Query {{audiences {{totalCount}}}}")
    assert answer.kind == "request_error"


def test_a_query_of_depth_1000_and_one_of_10000_aliases_leave_the_stack_alone() -> None:
    limit = sys.getrecursionlimit()
    world = shop()
    assert world.code("{customer" * 1_000 + "}" * 1_000) == "QUERY_TOO_DEEP"
    aliases = "{" + " ".join(f"a{n}: audiences {{totalCount}}" for n in range(10_000)) + "}"
    assert world.code(aliases) in {"DOCUMENT_TOO_LARGE", "TOO_MANY_TOKENS", "TOO_MANY_ALIASES"}
    assert sys.getrecursionlimit() == limit


def test_aliases_are_bounded_and_colons_of_arguments_are_none() -> None:
    world = World(aliases_max=2)
    assert world.data(
        "query($a: Int, $b: Int, $c: Int) {audiences(first: $a, last: $b) {x: totalCount} "
        "y: audiences(first: $c, filter: {name_prefix: null}) {totalCount}}"
    )
    refused(world, "{audiences {x: totalCount y: totalCount z: totalCount}}", "TOO_MANY_ALIASES", "aliases_max")


@pytest.mark.parametrize(
    "query",
    [
        "{" + "__typename " * 2_000 + "}",
        "{" + 'audiences(filter: {name_prefix: "a"}) {totalCount} ' * 300 + "}",
        "{"
        + "".join(f"...F{n} " for n in range(300))
        + "}"
        + "".join(f"fragment F{n} on Query {{audiences {{totalCount}}}} " for n in range(300)),
        "{...F0}"
        + "".join(
            f"fragment F{n} on __Type {{ofType {{...F{n + 1}}} x: ofType {{...F{n + 1}}} y: ofType {{...F{n + 1}}}}} "
            for n in range(15)
        )
        + "fragment F15 on __Type {name}",
    ],
    ids=["same leaf", "same field", "many fragments", "doubling fragments"],
)
def test_documents_that_are_dear_to_validate_are_refused_before(query: str) -> None:
    refused(World(tokens_max=5_000), query, "QUERY_TOO_EXPENSIVE", "cost_max")


def test_the_full_introspection_query_passes_the_default_limits() -> None:
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    world = World(identifier_names=[f"identifier_{n}" for n in range(40)])
    assert world.data(query)["__schema"]["queryType"] == {"name": "Query", "kind": "OBJECT"}


def test_introspection_cannot_be_made_dear() -> None:
    fields = "fields {type {fields {type {name kind description ofType {name}}}}}"
    world = World(cost_max=40)
    refused(world, f"{{__schema {{types {{{fields}}}}}}}", "QUERY_TOO_EXPENSIVE", "cost_max")
    query = f"query($name: String!) {{__type(name: $name) {{{fields}}}}}"
    refused(world, query, "QUERY_TOO_EXPENSIVE", "cost_max", {"name": "Query"})
    assert world.data(query, {"name": "Nothing"}) == {"__type": None}
    refused(
        world, query.replace("$name)", '"Query")').replace("($name: String!) ", ""), "QUERY_TOO_EXPENSIVE", "cost_max"
    )


LISTING = "{audiences%s {edges {node {name size}}}}"


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ("", False),
        ("(first: 10)", True),
        ("(last: 10)", True),
        ("(first: 1000, last: 10)", True),
        ("(first: 1000)", False),
        ("(first: null)", False),
        ("(first: -5)", True),
        ("(first: 99999999999999999999)", False),
    ],
)
def test_a_list_costs_its_page(arguments: str, passes: bool) -> None:
    world = many_segments(100, cost_max=200)
    codes = [error["extensions"]["code"] for error in world.ask(LISTING % arguments).body.get("errors", [])]
    assert ("QUERY_TOO_EXPENSIVE" not in codes and "VALIDATION_ERROR" not in codes) == passes


@pytest.mark.parametrize(("first", "passes"), [(10, True), (100, False), (None, False), (-1, True)])
def test_a_page_size_in_a_variable_counts_with_its_value(first: int | None, passes: bool) -> None:
    world = many_segments(100, cost_max=200)
    query = "query($first: Int) " + LISTING % "(first: $first)"
    answer = world.ask(query, {"first": first})
    assert (answer.kind != "request_error") == passes


def test_a_default_of_a_page_size_counts_where_no_value_is_given() -> None:
    world = many_segments(100, cost_max=200)
    query = "query($first: Int = 10) " + LISTING % "(first: $first)"
    assert len(world.data(query)["audiences"]["edges"]) == 10
    refused(world, query, "QUERY_TOO_EXPENSIVE", "cost_max", {"first": None})


SUBSET = 'query($names: [String]) {customer(fs_user_id: "u") {audiences(subset: $names) {edges {node {name state}}}}}'


def test_a_subset_bounds_the_cost_and_is_counted_itself() -> None:
    world = many_segments(100, cost_max=200)
    assert world.data(SUBSET, {"names": ["s0001"] * 30})
    refused(world, SUBSET, "QUERY_TOO_EXPENSIVE", "cost_max", {"names": None})
    refused(world, SUBSET, "QUERY_TOO_EXPENSIVE", "cost_max", {"names": ["unknown"] * 300})
    literal = '{customer(fs_user_id: "u") {audiences(subset: %s) {edges {node {name}}}}}'
    assert world.data(literal % '["s0001", "s0002"]')
    assert world.data(literal % '"s0001"')
    refused(world, literal % "null", "QUERY_TOO_EXPENSIVE", "cost_max")


def test_more_segments_make_the_same_cached_query_dearer() -> None:
    world = many_segments(10, cost_max=100)
    assert world.data(LISTING % "")
    for number in range(100):
        world.catalog.define(f"t{number}", "T")
    refused(world, LISTING % "", "QUERY_TOO_EXPENSIVE", "cost_max")


def test_only_the_chosen_operation_is_counted() -> None:
    world = many_segments(100, cost_max=200)
    query = "query Cheap {audiences {totalCount}} query Dear " + LISTING % ""
    assert world.ask(query, operation_name="Cheap").kind == "success"
    assert world.ask(query, operation_name="Dear").kind == "request_error"


def _fields_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(1 + _fields_in(inner) for inner in value.values())
    return sum(map(_fields_in, value)) if isinstance(value, list) else 0


@given(
    st.lists(st.sampled_from(["name", "size", "is_ready", "state", "__typename", "revision"]), min_size=1, unique=True),
    st.none() | st.integers(0, 30),
    st.none() | st.lists(st.sampled_from(["s0000", "s0001", "s0007", "nope", None]), max_size=6),
)
def test_the_cost_is_never_below_the_number_of_fields_that_are_answered(
    fields: list[str], first: int | None, subset: list[str | None] | None
) -> None:
    query = (
        'query($first: Int, $subset: [String]) {customer(fs_user_id: "u") {audiences(subset: $subset, first: $first, '
        f'states: ["not_qualified"]) {{totalCount edges {{cursor node {{{" ".join(fields)}}}}}}}}}}}'
    )
    variables = {"first": first, "subset": subset}
    answered = _fields_in(TWENTY.data(query, variables))
    prepared = TWENTY.engine._documents.prepare(query)
    assert prepared.document.costs[None].at(variables, 20) >= answered


@pytest.mark.parametrize(
    "query",
    [
        "{__schema {types {name fields {name args {name type {name ofType {name}}}}}}}",
        '{__type(name: "Query") {name kind}}',
    ],
)
def test_the_cost_of_introspection_is_exact_but_for_nulls(query: str) -> None:
    prepared = TWENTY.engine._documents.prepare(query)
    variables = {f"literal_{n}": literal for n, literal in enumerate(prepared.literals)}
    cost = prepared.document.costs[None].at(variables, 20)
    assert cost == _fields_in(TWENTY.data(query))


TWENTY = many_segments(20)
