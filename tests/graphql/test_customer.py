"""What `customer` answers."""

from typing import Any

import pytest

from tests.graphql.fakes import World, shop

SDK_QUERY = (
    "query($userId: String, $audiences: [String]) {customer(fs_user_id: $userId) "
    "{audiences(subset: $audiences) {edges {node {name state}}}}}"
)


def names(world: World, arguments: str, of: str = 'fs_user_id: "u-1"') -> list[str]:
    data = world.data(f"{{customer({of}) {{audiences{arguments} {{edges {{node {{name}}}}}}}}}}")
    return [edge["node"]["name"] for edge in data["customer"]["audiences"]["edges"]]


def test_the_python_sdks_query_finds_the_qualified_segments_of_the_subset() -> None:
    data = shop().data(SDK_QUERY, {"userId": "u-1", "audiences": ["a", "b", "c"]})
    edges = [{"node": {"name": "a", "state": "qualified"}}, {"node": {"name": "c", "state": "qualified"}}]
    assert data == {"customer": {"audiences": {"edges": edges}}}


def test_the_javascript_sdks_query_with_pasted_literals_works() -> None:
    query = 'query {customer(fs_user_id : "u-1") {audiences(subset: ["c","b"]) {edges {node {name state}}}}}'
    data = shop().data(query)
    assert data["customer"]["audiences"]["edges"] == [{"node": {"name": "c", "state": "qualified"}}]


def test_the_subset_gives_the_order_and_duplicates_unknown_names_and_nulls_are_ignored() -> None:
    assert names(shop(), '(subset: ["c", "nope", null, "a", "C", "c"])') == ["c", "a"]


def test_names_are_compared_in_lower_case_of_ascii_letters_only() -> None:
    world = shop()
    world.catalog.define("k", "A")
    assert names(world, '(subset: ["A", "K"])') == ["a", "k"]
    assert names(world, '(subset: ["\\u212A"])') == []


def test_no_subset_or_a_null_one_means_all_segments_by_name() -> None:
    assert names(shop(), "") == ["a", "c"]
    assert names(shop(), "(subset: null)") == ["a", "c"]
    assert shop().data(SDK_QUERY, {"userId": "u-1"})["customer"]["audiences"]["edges"] != []


def test_an_empty_subset_finds_nothing_and_a_single_name_is_a_list_of_one() -> None:
    assert names(shop(), "(subset: [])") == []
    assert names(shop(), '(subset: "a")') == ["a"]


@pytest.mark.parametrize(
    "value",
    ["never-seen", "", "x" * 10_000, "nul\0", "line\nbreak", "\ud800", "\x7f"],
    ids=["unknown", "empty", "10 kB", "NUL", "line break", "lone surrogate", "DEL"],
)
def test_a_value_that_is_unknown_or_cannot_exist_has_no_edges_and_no_error(value: str) -> None:
    data = shop().data(SDK_QUERY, {"userId": value, "audiences": ["a", "b"]})
    assert data == {"customer": {"audiences": {"edges": []}}}


def test_every_identifier_works_with_and_without_a_leading_underscore() -> None:
    world = shop()
    world.store.decide("a_high_confidence_identifier", "x", "B")
    assert names(world, "", 'a_high_confidence_identifier: "x"') == ["b"]
    assert names(world, "", '_a_high_confidence_identifier: "x"') == ["b"]
    assert names(world, "", 'email: "ANN@example.ORG"') == ["a"]


def test_a_low_confidence_identifier_is_allowed_and_finds_no_members() -> None:
    world = shop()
    world.store.decide("vuid", "v-1", "A")
    assert names(world, "", 'vuid: "v-1"') == []


def test_null_identifiers_count_as_not_given() -> None:
    assert names(shop(), "", 'fs_user_id: "u-1", email: null, _fs_user_id: null') == ["a", "c"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "(fs_user_id: null)",
        '(fs_user_id: "a", email: "b")',
        '(fs_user_id: "a", _fs_user_id: "a")',
        '(fs_user_id: "a", vuid: "b")',
    ],
)
def test_none_or_two_identifiers_are_the_error_that_the_sdks_know(arguments: str) -> None:
    answer = shop().ask(f"{{\n  found: customer{arguments} {{audiences {{edges {{node {{name}}}}}}}}\n}}")
    assert answer.kind == "field_errors"
    (error,) = answer.body["errors"]
    assert error["locations"] == [{"line": 2, "column": 3}]
    assert error["path"] == ["found"]
    assert error["extensions"] == {
        "code": "INVALID_IDENTIFIER_EXCEPTION",
        "classification": "DataFetchingException",
    }
    assert answer.body["data"] == {"found": None}


def test_a_null_variable_is_no_identifier() -> None:
    assert shop().code(SDK_QUERY, {"userId": None, "audiences": []}) == "INVALID_IDENTIFIER_EXCEPTION"


def test_an_identifier_name_that_is_not_configured_is_a_validation_error() -> None:
    answer = shop().ask('{customer(phone: "1") {audiences {edges {node {name}}}}}')
    assert answer.kind == "request_error"
    (error,) = answer.body["errors"]
    assert "phone" in error["message"]
    assert error["extensions"] == {"code": "VALIDATION_ERROR", "classification": "ValidationError"}


def test_identifiers_may_be_named_like_the_executors_own_arguments() -> None:
    world = World(identifier_names=("info", "self"))
    world.catalog.define("a", "A")
    assert names(world, '(states: ["not_qualified"])', 'info: "x"') == ["a"]
    assert names(world, "", 'self: "x"') == []


STATES = '{audiences(subset: ["c", "b", "a"], states: %s) {edges {node {name state}}}}'


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ("null", ["c qualified", "a qualified"]),
        ('["qualified"]', ["c qualified", "a qualified"]),
        ('["not_qualified"]', ["b not_qualified"]),
        ('["not_qualified", null, "qualified"]', ["c qualified", "b not_qualified", "a qualified"]),
        ("[]", []),
    ],
)
def test_states_chooses_what_is_shown(states: str, found: list[str]) -> None:
    data = shop().data(f'{{customer(fs_user_id: "u-1") {STATES % states}}}')
    nodes = [edge["node"] for edge in data["customer"]["audiences"]["edges"]]
    assert [f"{node['name']} {node['state']}" for node in nodes] == found


def test_whoever_was_never_seen_is_not_qualified() -> None:
    assert names(shop(), '(states: ["not_qualified"])', 'fs_user_id: "nobody"') == ["a", "b", "c"]
    assert names(shop(), '(states: ["not_qualified"])', 'vuid: "v"') == ["a", "b", "c"]


def test_an_unknown_state_is_a_field_error() -> None:
    errors = shop().errors('{customer(fs_user_id: "u-1") {audiences(states: ["maybe"]) {edges {node {name}}}}}')
    assert errors[0]["extensions"]["code"] == "INVALID_ARGUMENT"
    assert errors[0]["path"] == ["customer", "audiences"]
    assert "'maybe'" in errors[0]["message"]


ALL_FIELDS = (
    "name state revision description is_ready size metadata external_audience_id qualified_at updated_at __typename"
)


def node_of(name: str) -> dict[str, Any]:
    data = shop().data(
        f'{{customer(fs_user_id: "u-1") {{audiences(subset: "{name}", states: ["qualified", "not_qualified"]) '
        f"{{edges {{node {{{ALL_FIELDS}}}}}}}}}}}"
    )
    node: dict[str, Any] = data["customer"]["audiences"]["edges"][0]["node"]
    return node


def test_a_node_has_all_fields_of_the_segment_and_of_the_decision() -> None:
    assert node_of("a") == {
        "name": "a",
        "state": "qualified",
        "revision": 3,
        "description": "first",
        "is_ready": True,
        "size": 3,
        "metadata": {"team": "x"},
        "external_audience_id": "A",
        "qualified_at": 1_700_000_000.123,
        "updated_at": 1_700_000_000.123,
        "__typename": "CustomerAudience",
    }


def test_a_disqualified_node_was_updated_and_has_no_qualified_at() -> None:
    node = node_of("b")
    assert (node["state"], node["qualified_at"], node["updated_at"], node["size"]) == ("not_qualified", None, 2.0, 0)
