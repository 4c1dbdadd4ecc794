"""Queries over a store that has to be waited for: few calls, one state for each answer, and an end."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from unittest import mock

import pytest
import trio
from graphql import parse
from hypothesis import given

from segmentd.domain.importjob import ImportJob
from segmentd.domain.members import MembersPage
from segmentd.domain.refusals import Overloaded, StoreUnavailable
from segmentd.graphql import engine as engines
from segmentd.graphql.engine import GraphQLAnswer, GraphQLEngine, GraphQLRequest
from segmentd.graphql.gathering import ROUNDS_MAX, AwaitedReads
from segmentd.runtime.seam import Found, Wanted
from segmentd.settings import GraphQLSettings
from tests.awaited import AwaitedFake
from tests.graphql.fakes import IDENTIFIERS, World, shop
from tests.graphql.test_plans import VALUES, documents

SIZES = '{customer(fs_user_id: "u-1") {audiences {edges {node {name size}}}} other: audience(name: "b") {size}}'
U_1 = IDENTIFIERS.key(IDENTIFIERS.kinds["fs_user_id"], "u-1")
U_2 = IDENTIFIERS.key(IDENTIFIERS.kinds["fs_user_id"], "u-2")


@pytest.fixture(params=["awaited"], scope="module", autouse=True)
def kind(request: pytest.FixtureRequest) -> Any:
    """Here there is one kind."""
    return request.param


class Asked:
    """A world whose store has to be waited for."""

    def __init__(self, world: World | None = None, **settings: Any) -> None:
        self.world = world or shop()
        self.fake = AwaitedFake(self.world.store, Members())
        self.reads = AwaitedReads(self.fake, Imported(), 7)
        settings = {"members_page_max": 10} | settings
        page_max = settings.pop("members_page_max")
        self.engine = GraphQLEngine(
            None, self.world.catalog, IDENTIFIERS, GraphQLSettings(**settings), members_page_max=page_max
        )

    def ask(self, query: str, variables: dict[str, Any] | None = None, right: Any = "public") -> GraphQLAnswer:
        request = GraphQLRequest(query=query, variables=variables)
        return trio.run(partial(self.engine.execute_awaited, request, right=right, reads=self.reads))


class Members:
    """u-1 and u-2 are in every audience, u-1 since a list of the audience."""

    def members(self, _audience: str, after: bytes, first: int) -> MembersPage:
        behind = [member for member in ((U_1, 4_000), (U_2, 6_000)) if member[0] > after]
        return MembersPage(behind[:first], 2, len(behind) > first)


class Imported:
    """What is known of imports."""

    def last_completed(self, _audience_id: str) -> ImportJob | None:
        return None

    def qualifying(self, _audience_id: str) -> dict[int, str]:
        return {4_000: "job-1"}

    def deciding(self, _audience_ids: object) -> dict[tuple[str, int], str]:
        return {}


def test_what_is_known_from_the_text_is_fetched_in_one_call_and_sizes_of_whom_it_shows_in_a_second() -> None:
    asked = Asked()
    answer = asked.ask(SIZES)
    assert answer.body == {
        "data": {
            "customer": {
                "audiences": {"edges": [{"node": {"name": "a", "size": 3}}, {"node": {"name": "c", "size": 1}}]}
            },
            "other": {"size": 0},
        }
    }
    assert asked.fake.fetched == [Wanted({U_1: {"A", "B", "C"}}, {"B"}, set()), Wanted({}, {"A", "C"}, set())]


def test_a_query_without_memberships_is_not_waited_for() -> None:
    asked = Asked()
    assert asked.ask("{audiences {edges {node {name revision}}}}").kind == "success"
    assert asked.fake.fetched == []


def test_several_customers_are_one_call() -> None:
    asked = Asked()
    part = 'customer(fs_user_id: "%s") {audiences(subset: ["a", "b"]) {edges {node {name state}}}}'
    answer = asked.ask(f"{{one: {part % 'u-1'} two: {part % 'u-2'}}}")
    assert [len(answer.body["data"][name]["audiences"]["edges"]) for name in ("one", "two")] == [1, 1]
    assert asked.fake.fetched == [Wanted({U_1: {"A", "B"}, U_2: {"A", "B"}}, set(), set())]


def test_a_plan_answers_and_is_counted_once_whatever_the_rounds() -> None:
    asked = Asked()
    for times in (1, 2, 3):
        assert asked.ask(SIZES).planned
        assert asked.engine.answered_by_plans == times
    plain = Asked(plans=False)
    assert plain.ask(SIZES).encoded == asked.ask(SIZES).encoded
    assert plain.engine.answered_by_plans == 0


def test_edges_that_were_written_in_an_incomplete_round_are_not_taken_for_others() -> None:
    asked = Asked()
    query = (
        '{customer(fs_user_id: "%s") {audiences(states: ["qualified", "not_qualified"]) {edges {node {name state}}}}}'
    )
    for _ in range(2):
        for user, expected in (("u-1", "qualified"), ("nobody", "not_qualified")):
            edges = asked.ask(query % user).body["data"]["customer"]["audiences"]["edges"]
            assert edges[0]["node"] == {"name": "a", "state": expected}


@pytest.mark.parametrize("refusal", [StoreUnavailable("The cluster is away.", 3), Overloaded("Too much.", 3)])
def test_the_refusal_of_the_store_is_the_requests(refusal: Exception) -> None:
    asked = Asked()
    asked.fake.refusal = refusal
    with pytest.raises(type(refusal)) as told:
        asked.ask(SIZES)
    assert told.value is refusal
    assert asked.engine.answered_by_plans == 0


def test_a_reader_that_leaves_something_out_is_a_failure_and_no_answer() -> None:
    asked = Asked()

    class Forgetful:
        async def fetch(self, _wanted: Wanted) -> Found:
            await trio.lowlevel.checkpoint()
            return Found()

    asked.reads = AwaitedReads(Forgetful(), None, 7)
    with pytest.raises(KeyError):
        asked.ask(SIZES)


def test_an_answer_shows_one_state_even_if_another_one_is_there_meanwhile() -> None:
    asked = Asked()

    def join() -> None:
        asked.world.store.decide("fs_user_id", "u-9", "A")

    asked.fake.meanwhile = join
    query = """{audience(name: "a") {size} again: audiences(filter: {external_audience_id: "A"}) {edges {node {size}}}
      customer(fs_user_id: "u-1") {audiences {edges {node {size}}}}}"""
    data = asked.ask(query).body["data"]
    shown = {data["audience"]["size"], data["again"]["edges"][0]["node"]["size"]}
    shown.add(data["customer"]["audiences"]["edges"][0]["node"]["size"])
    assert len(shown) == 1


def test_a_segment_that_is_made_meanwhile_takes_one_round_more() -> None:
    asked = Asked()
    names = iter("de")

    def define() -> None:
        if (name := next(names, None)) is not None:
            asked.world.catalog.define(name, name.upper())

    asked.fake.meanwhile = define
    answer = asked.ask("{audiences {edges {node {name size}}}}")
    assert [edge["node"]["name"] for edge in answer.body["data"]["audiences"]["edges"]] == list("abcde")
    assert len(asked.fake.fetched) == 3


def test_a_request_that_wants_more_in_every_round_is_refused() -> None:
    asked = Asked()
    asked.fake.meanwhile = lambda: asked.world.catalog.define(
        f"n{len(asked.fake.fetched)}", f"N{len(asked.fake.fetched)}"
    )
    with pytest.raises(StoreUnavailable) as told:
        asked.ask("{audiences {edges {node {size}}}}")
    assert told.value.retry_after_seconds == 7
    assert len(asked.fake.fetched) == ROUNDS_MAX


def test_errors_are_told_from_the_last_round_alone() -> None:
    asked = Asked()
    query = '{customer {__typename} good: customer(fs_user_id: "u-1") {audiences {edges {node {name size}}}}}'
    with mock.patch.object(engines, "parse", wraps=parse) as located:
        answer = asked.ask(query)
    assert answer.kind == "field_errors"
    assert [error["path"] for error in answer.body["errors"]] == [["customer"]]
    assert answer.body["data"]["good"]["audiences"]["edges"][0]["node"] == {"name": "a", "size": 3}
    assert located.call_count == 1
    assert len(asked.fake.fetched) == 2


def test_members_are_fetched_for_private_keys_alone() -> None:
    asked = Asked()
    query = (
        """{audience(name: "a") {members(first: 1) {totalCount edges {node {value source}} pageInfo {hasNextPage}}}}"""
    )
    page = asked.ask(query, right="private").body["data"]["audience"]["members"]
    assert page == {
        "totalCount": 2,
        "edges": [{"node": {"value": "u-1", "source": "import:job-1"}}],
        "pageInfo": {"hasNextPage": True},
    }
    assert asked.fake.fetched == [Wanted({}, set(), {("A", b"", 1)})]
    (error,) = asked.ask(query).body["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert len(asked.fake.fetched) == 1


def test_a_page_that_is_too_large_is_refused_before_anything_is_fetched() -> None:
    asked = Asked()
    (error,) = asked.ask('{audience(name: "a") {members(first: 11) {totalCount}}}', right="private").body["errors"]
    assert error["extensions"]["code"] == "INVALID_ARGUMENT"
    assert asked.fake.fetched == []


@given(documents(), VALUES)
def test_what_is_fetched_at_once_is_within_what_the_query_may_cost(text: str, variables: Mapping[str, Any]) -> None:
    asked = Asked()
    asked.ask(text, dict(variables))
    wanted = max((_things(each) for each in asked.fake.fetched), default=0)
    assert len(asked.fake.fetched) <= 2
    if wanted:
        # One less than that and the query is refused before anything is fetched.
        cheap = Asked(cost_max=wanted)
        cheap.ask(text, dict(variables))
        assert all(_things(each) <= wanted for each in cheap.fake.fetched)
        cheaper = Asked(cost_max=max(1, wanted - 1))
        cheaper.ask(text, dict(variables))
        assert wanted == 1 or cheaper.fake.fetched == []


def _things(wanted: Wanted) -> int:
    return sum(map(len, wanted.lookups.values())) + len(wanted.sizes) + sum(1 + page[2] for page in wanted.pages)
