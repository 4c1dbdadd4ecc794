"""Errors: their kinds, shapes and places; and that nothing escapes."""

import json
from typing import Any

import pytest
from graphql import get_introspection_query
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.graphql.errors import MESSAGE_CHARS_MAX
from segmentd.graphql.schema import build_schema
from tests.graphql.fakes import shop

NAME_QUERY = 'query($name: String = "a") {audience(name: $name) {name}}'


@pytest.mark.parametrize(
    ("query", "code", "classification", "locations"),
    [
        ("{", "INVALID_SYNTAX", "InvalidSyntax", [{"line": 1, "column": 2}]),
        ("", "INVALID_SYNTAX", "InvalidSyntax", [{"line": 1, "column": 1}]),
        ('{audience(name: "a\n")', "INVALID_SYNTAX", "InvalidSyntax", [{"line": 1, "column": 19}]),
        ("{nope}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 2}]),
        ("{audience {name}}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 2}]),
        ("mutation {a}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 1}]),
        ("subscription {a}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 1}]),
        ("{...F} fragment F on Query {...F}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 29}]),
        ("type A {b: C}", "VALIDATION_ERROR", "ValidationError", [{"line": 1, "column": 1}]),
    ],
)
def test_a_bad_document_is_a_request_error_with_its_place(
    query: str, code: str, classification: str, locations: list[dict[str, int]]
) -> None:
    answer = shop().ask(query)
    assert answer.kind == "request_error"
    assert set(answer.body) == {"errors"}
    error = answer.body["errors"][0]
    assert error["extensions"] == {"code": code, "classification": classification}
    assert error["locations"] == locations


def test_a_mutation_is_refused_in_words() -> None:
    assert "mutation operation is not supported" in shop().errors("mutation {a}")[0]["message"]


@pytest.mark.parametrize("value", [5, {"a": 1}, [["a"]], True])
def test_variables_of_a_wrong_type_are_request_errors_with_their_place(value: Any) -> None:
    query = "query($x: String) {customer(fs_user_id: $x) {audiences {totalCount}}}"
    answer = shop().ask(query, {"x": value})
    assert answer.kind == "request_error"
    error = answer.body["errors"][0]
    assert error["extensions"] == {"code": "INVALID_VARIABLES", "classification": "ValidationError"}
    assert error["locations"] == [{"line": 1, "column": 7}]


def test_a_missing_required_variable_is_a_request_error() -> None:
    assert shop().code("query($x: String!) {audience(name: $x) {name}}") == "INVALID_VARIABLES"


def test_a_wrong_variable_beside_literals_is_placed_in_the_clients_text() -> None:
    query = 'query($n: Int) {audience(name: "a") {name} audiences(first: $n) {totalCount}}'
    (error,) = shop().errors(query, {"n": "x"})
    assert error["locations"] == [{"line": 1, "column": 7}]
    assert "literal" not in error["message"]


def test_deep_variables_are_an_error_and_not_a_crash() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    query = 'query($x: [String]) {customer(fs_user_id: "a") {audiences(subset: $x) {totalCount}}}'
    assert shop().code(query, {"x": deep}) == "INVALID_VARIABLES"


def test_an_explicit_null_where_a_default_was_meant_is_a_field_error() -> None:
    assert shop().data(NAME_QUERY) == {"audience": {"name": "a"}}
    answer = shop().ask(NAME_QUERY, {"name": None})
    assert answer.kind == "field_errors"
    assert answer.body["data"] == {"audience": None}
    assert answer.body["errors"][0]["extensions"] == {"code": "INVALID_ARGUMENT", "classification": "ValidationError"}


TWO = 'query A {audience(name: "a") {name}} query B {audiences {totalCount}}'


def test_the_operation_is_chosen_by_name() -> None:
    assert shop().ask(TWO, operation_name="B").body == {"data": {"audiences": {"totalCount": 3}}}
    assert shop().ask(TWO, operation_name="A").body == {"data": {"audience": {"name": "a"}}}


@pytest.mark.parametrize("name", [None, "C", ""])
def test_a_missing_or_unknown_operation_name_is_a_request_error(name: str | None) -> None:
    answer = shop().ask(TWO, operation_name=name)
    assert answer.kind == "request_error"
    assert answer.body["errors"][0]["extensions"] == {"code": "UNKNOWN_OPERATION", "classification": "ValidationError"}


def test_an_error_does_not_hide_the_fields_beside_it() -> None:
    answer = shop().ask('{bad: audiences(first: -1) {totalCount} good: audience(name: "a") {name}}')
    assert answer.kind == "field_errors"
    assert answer.body["data"] == {"bad": None, "good": {"name": "a"}}


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_a_failing_resolver_is_internal_without_details_and_its_path_is_of_strings() -> None:
    world = shop()
    world.store.failure = RuntimeError("secret detail")
    answer = world.ask("{audiences(first: 2) {edges {node {name size}}}}")
    assert answer.kind == "field_errors"
    first, second = answer.body["errors"]
    assert first["path"] == ["audiences", "edges", "0", "node", "size"]
    assert second["path"] == ["audiences", "edges", "1", "node", "size"]
    assert first["extensions"] == {"code": "INTERNAL", "classification": "DataFetchingException"}
    assert "secret" not in json.dumps(answer.body)
    assert answer.body["data"]["audiences"]["edges"][0]["node"] == {"name": "a", "size": None}


def test_a_failing_catalog_is_internal_too() -> None:
    world = shop()
    del world.catalog._segments
    answer = world.ask("{audiences {totalCount}}")
    assert answer.body == {
        "errors": [
            {
                "message": "Internal error: the details are in the service's log.",
                "extensions": {"code": "INTERNAL", "classification": "DataFetchingException"},
            }
        ],
        "data": None,
    }
    assert answer.kind == "field_errors"


def test_messages_are_cut_and_have_no_lone_surrogates() -> None:
    assert len(shop().errors("{" + "x" * 30_000 + "}")[0]["message"]) <= MESSAGE_CHARS_MAX
    (error,) = shop().errors("query($x: Int) {audiences(first: $x) {totalCount}}", {"x": "\ud800"})
    assert error["message"].encode()


def test_a_lone_surrogate_in_the_text_is_a_syntax_error_also_where_the_outline_is_known() -> None:
    world = shop()
    assert world.data('{audience(name: "a") {name}}') == {"audience": {"name": "a"}}
    assert world.code('{audience(name: "\ud800") {name}}') == "INVALID_SYNTAX"


def test_introspection_of_the_common_tools_passes_and_everything_is_described() -> None:
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    schema = shop().data(query)["__schema"]
    own = [type_ for type_ in schema["types"] if not type_["name"].startswith("__")]
    for type_ in own:
        members = [*(type_["fields"] or []), *(type_["inputFields"] or [])]
        arguments = [argument for field in type_["fields"] or [] for argument in field["args"]]
        for described in (type_, *members, *arguments):
            assert described["description"], described["name"]


@pytest.mark.parametrize(
    ("names", "reason"), [(["a", "_a"], "share"), (["_b"], "underscore"), (["a-b"], "cannot be a GraphQL argument")]
)
def test_identifier_names_that_cannot_be_arguments_are_refused_at_the_start(names: list[str], reason: str) -> None:
    kinds = [IdentifierKind(name, Confidence.HIGH, number) for number, name in enumerate(names)]
    with pytest.raises(ValueError, match=reason):
        build_schema(IdentifierSchema(kinds))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SOUP = st.lists(
    st.sampled_from(
        [*'{}()[]:$!@#"\\ \n,=|&', '"""', "...", "query", "fragment", "on", "audiences", "edges", "first", "5"]
    )
    | st.text(max_size=3),
    max_size=40,
).map("".join)


@given(SOUP, st.none() | st.dictionaries(st.text(), JSON, max_size=3), st.none() | st.text(max_size=3))
def test_no_input_raises_and_every_answer_has_its_shape(
    query: str, variables: dict[str, Any] | None, operation_name: str | None
) -> None:
    answer = SHOP.ask(query, variables, operation_name)
    assert ("data" in answer.body) == (answer.kind != "request_error")
    assert ("errors" in answer.body) == (answer.kind != "success")
    for error in answer.body.get("errors", []):
        assert error["extensions"]["code"] != "INTERNAL"


@given(JSON, JSON, JSON)
def test_no_variables_raise(user: Any, audiences: Any, first: Any) -> None:
    query = (
        "query($user: String, $audiences: [String], $first: Int) {customer(fs_user_id: $user) "
        "{audiences(subset: $audiences, first: $first) {edges {node {name state}}}}}"
    )
    answer = SHOP.ask(query, {"user": user, "audiences": audiences, "first": first})
    assert all(error["extensions"]["code"] != "INTERNAL" for error in answer.body.get("errors", []))
    assert json.dumps(answer.body).encode()


SHOP = shop()
