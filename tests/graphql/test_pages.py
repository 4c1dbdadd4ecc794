"""Connections: the lists, their pages and their cursors."""

from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.graphql.cursors import cursor_of, name_of
from segmentd.graphql.errors import ReadError
from tests.graphql.fakes import World, shop

PAGE = "edges {cursor node {name}} pageInfo {hasNextPage hasPreviousPage startCursor endCursor} totalCount"
LIST_QUERY = (
    "query($first: Int, $after: String, $last: Int, $before: String, $filter: AudienceFilter) "
    f"{{audiences(first: $first, after: $after, last: $last, before: $before, filter: $filter) {{{PAGE}}}}}"
)
SUBSET_QUERY = (
    "query($subset: [String], $first: Int, $after: String, $last: Int, $before: String) {customer(fs_user_id: "
    f'"u") {{audiences(subset: $subset, first: $first, after: $after, last: $last, before: $before) {{{PAGE}}}}}}}'
)


def letters(names: str) -> World:
    """One segment for each letter; customer `u` is in all of them."""
    world = World()
    for name in names:
        world.catalog.define(name, name.upper())
        world.store.decide("fs_user_id", "u", name.upper())
    return world


def shown(connection: dict[str, Any]) -> str:
    return "".join(edge["node"]["name"] for edge in connection["edges"])


def listed(world: World, **variables: Any) -> dict[str, Any]:
    connection: dict[str, Any] = world.data(LIST_QUERY, variables)["audiences"]
    return connection


def of_customer(world: World, subset: list[str] | None, **variables: Any) -> dict[str, Any]:
    data = world.data(SUBSET_QUERY, {"subset": subset, **variables})
    connection: dict[str, Any] = data["customer"]["audiences"]
    return connection


def test_the_query_of_the_source_lists_all_segments() -> None:
    data = shop().data("query { audiences { edges { node { name revision description is_ready size } } } }")
    assert data["audiences"]["edges"][0]["node"] == {
        "name": "a",
        "revision": 3,
        "description": "first",
        "is_ready": True,
        "size": 3,
    }
    assert [edge["node"]["name"] for edge in data["audiences"]["edges"]] == ["a", "b", "c"]


def test_a_service_without_segments_has_an_empty_list() -> None:
    assert listed(World()) == {
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
        "totalCount": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "page", "has_previous", "has_next"),
    [
        ({}, "abcde", False, False),
        ({"first": 2}, "ab", False, True),
        ({"first": 0}, "", False, True),
        ({"first": 9}, "abcde", False, False),
        ({"last": 2}, "de", True, False),
        ({"first": 3, "last": 2}, "bc", True, True),
        ({"after": "b"}, "cde", True, False),
        ({"after": "b", "first": 2}, "cd", True, True),
        ({"before": "d", "last": 2}, "bc", True, True),
        ({"after": "a", "before": "e"}, "bcd", True, True),
        ({"after": "d", "before": "b"}, "", True, True),
    ],
)
def test_pages_follow_the_relay_rules(arguments: dict[str, Any], page: str, has_previous: bool, has_next: bool) -> None:
    variables = {name: cursor_of(at) if isinstance(at, str) else at for name, at in arguments.items()}
    for connection in (
        listed(letters("ebadc"), **variables),
        of_customer(letters("ebadc"), None, **variables),
        of_customer(letters("ebadc"), list("abcde"), **variables),
    ):
        assert shown(connection) == page
        assert connection["totalCount"] == 5
        assert connection["pageInfo"] == {
            "hasNextPage": has_next,
            "hasPreviousPage": has_previous,
            "startCursor": cursor_of(page[0]) if page else None,
            "endCursor": cursor_of(page[-1]) if page else None,
        }
        assert [edge["cursor"] for edge in connection["edges"]] == [cursor_of(name) for name in page]


@pytest.mark.parametrize("argument", ["first", "last"])
def test_a_negative_page_size_is_a_field_error(argument: str) -> None:
    errors = letters("ab").errors(f"{{audiences({argument}: -1) {{totalCount}}}}")
    assert errors[0]["extensions"]["code"] == "INVALID_ARGUMENT"
    assert argument in errors[0]["message"]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!!!!!", "czE6", "czE6YQ==", "czE6YR", "a" * 10_000, "é", urlsafe_b64encode(b"s1:A B").decode(), "\0"],
)
@pytest.mark.parametrize("argument", ["after", "before"])
def test_what_is_no_cursor_is_a_field_error_that_names_the_argument(argument: str, cursor: str) -> None:
    errors = letters("ab").errors(LIST_QUERY, {argument: cursor})
    assert errors[0]["extensions"]["code"] == "INVALID_CURSOR"
    assert f"`{argument}`" in errors[0]["message"]


def test_a_cursor_stays_good_when_its_segment_goes_and_others_come() -> None:
    world = letters("abcd")
    cursor = listed(world, first=2)["pageInfo"]["endCursor"]
    world.catalog.drop("b")
    world.catalog.define("aa", "AA")
    world.catalog.define("bb", "BB")
    assert [edge["node"]["name"] for edge in listed(world, after=cursor)["edges"]] == ["bb", "c", "d"]


def test_a_cursor_in_a_subset_keeps_its_place_when_its_segment_goes() -> None:
    world = letters("abcd")
    cursor = of_customer(world, list("dbca"), first=2)["pageInfo"]["endCursor"]
    assert cursor == cursor_of("b")
    world.catalog.drop("b")
    assert shown(of_customer(world, list("dBca"), after=cursor)) == "ca"


def test_a_cursor_of_another_subset_is_a_field_error() -> None:
    world = letters("abcd")
    assert world.code(SUBSET_QUERY, {"subset": ["a", "b"], "after": cursor_of("c")}) == "INVALID_CURSOR"


@given(st.from_regex(r"[a-z0-9_]{1,128}", fullmatch=True))
def test_a_cursor_is_url_safe_and_names_its_segment(name: str) -> None:
    cursor = cursor_of(name)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert name_of(cursor, "after") == name


@given(st.text() | st.from_regex(r"czE6[A-Za-z0-9_-]{0,20}", fullmatch=True))
def test_any_text_is_a_cursor_that_was_handed_out_or_an_error(text: str) -> None:
    try:
        name = name_of(text, "after")
    except ReadError:
        return
    assert cursor_of(name) == text


@given(st.sets(st.sampled_from("abcdefgh")), st.integers(1, 4), st.booleans())
def test_walking_through_the_pages_in_either_direction_shows_every_item_once(
    names: set[str], size: int, forward: bool
) -> None:
    world = letters("".join(names))
    seen = ""
    cursor = None
    while True:
        page = listed(world, first=size, after=cursor) if forward else listed(world, last=size, before=cursor)
        seen = seen + shown(page) if forward else shown(page) + seen
        info = page["pageInfo"]
        if not info["hasNextPage" if forward else "hasPreviousPage"]:
            break
        cursor = info["endCursor" if forward else "startCursor"]
    assert seen == "".join(sorted(names))


@pytest.mark.parametrize(
    ("wanted", "page"),
    [
        ({}, ["big", "big_two", "small"]),
        ({"name_prefix": "BIG"}, ["big", "big_two"]),
        ({"name_contains": "_T"}, ["big_two"]),
        ({"name_contains": "", "name_prefix": None}, ["big", "big_two", "small"]),
        ({"external_audience_id": "Audience"}, ["big", "small"]),
        ({"external_audience_id": "audience"}, []),
        ({"external_audience_id": "Audience", "name_prefix": "s"}, ["small"]),
    ],
)
def test_a_filter_takes_what_meets_all_its_conditions(wanted: dict[str, Any], page: list[str]) -> None:
    world = World()
    world.catalog.define("big", "Audience")
    world.catalog.define("big_two", "Other")
    world.catalog.define("small", "Audience")
    connection = listed(world, filter=wanted)
    assert [edge["node"]["name"] for edge in connection["edges"]] == page
    assert connection["totalCount"] == len(page)


def test_one_segment_by_name_in_any_case_or_null() -> None:
    data = shop().data('{found: audience(name: "A") {name size external_audience_id} none: audience(name: "x") {name}}')
    assert data == {"found": {"name": "a", "size": 3, "external_audience_id": "A"}, "none": None}
