"""Plans: they answer what the executor answers, and the SDKs' queries reach them."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.graphql import writers
from segmentd.graphql.engine import GraphQLAnswer, GraphQLEngine, GraphQLRequest
from segmentd.settings import GraphQLSettings
from tests.graphql.fakes import IDENTIFIERS, World, answered, shop

PYTHON_SDK = (
    "query($userId: String, $audiences: [String]) {customer(%s: $userId) "
    "{audiences(subset: $audiences) {edges {node {name state}}}}}"
)
JAVASCRIPT_SDK = 'query {customer(%s : "%s") {audiences(subset: [%s]) {edges {node {name state}}}}}'


class Pair:
    """Two engines over one state, with plans and without."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.planning = self.engine(plans=True)
        self.plain = self.engine(plans=False)

    def engine(self, **settings: Any) -> GraphQLEngine:
        return GraphQLEngine(self.world.store, self.world.catalog, IDENTIFIERS, GraphQLSettings(**settings))

    def ask(self, query: str, variables: dict[str, Any] | None = None) -> tuple[GraphQLAnswer, bool]:
        """The answer, which both engines must agree on, and whether a plan wrote it."""
        request = GraphQLRequest(query=query, variables=variables)
        before = self.planning.answered_by_plans
        planned = answered(self.planning, self.world.store, request)
        executed = answered(self.plain, self.world.store, request)
        assert planned.kind == executed.kind
        assert pairs(planned) == pairs(executed)
        assert self.plain.answered_by_plans == 0
        return planned, self.planning.answered_by_plans > before


def pairs(answer: GraphQLAnswer) -> Any:
    """The answer with objects as lists of pairs, so that the order of keys counts."""
    return json.loads(answer.encoded, object_pairs_hook=list)


@pytest.mark.parametrize("identifier", ["fs_user_id", "_fs_user_id", "email", "vuid"])
def test_the_python_sdks_query_is_answered_by_a_plan(identifier: str) -> None:
    pair = Pair(shop())
    for user, audiences in [("u-1", ["a", "b", "C"]), ("nobody", ["c"]), ("", []), ("u-1", None)]:
        answer, planned = pair.ask(PYTHON_SDK % identifier, {"userId": user, "audiences": audiences})
        assert (answer.kind, planned) == ("success", True)


@pytest.mark.parametrize("names", [[], ["a"], ["c", "b", "a", "nope", "A"]])
def test_the_javascript_sdks_pasted_literals_reach_one_plan(names: list[str]) -> None:
    pair = Pair(shop())
    for user in ("u-1", "u-2", "é", ""):
        text = JAVASCRIPT_SDK % ("fs_user_id", user, ",".join(f'"{name}"' for name in names))
        answer, planned = pair.ask(text)
        assert (answer.kind, planned) == ("success", True)
    assert len(pair.planning._documents) == 1


@pytest.mark.parametrize(
    "query",
    [
        '{__typename c: customer(email: "ann@example.org") {audiences {totalCount pageInfo {hasNextPage endCursor}}}}',
        '{customer(fs_user_id: "u-1") {audiences(subset: "a") {edges {cursor node {...N}}}}} '
        "fragment N on CustomerAudience {name size updated_at metadata ... on CustomerAudience {is_ready}}",
        '{customer(fs_user_id: "u-1") {audiences(states: ["qualified", null], first: 1) {edges {node {name state}}}}}',
        '{audience(name: "a") {name size} audiences(first: 2) {edges {node {name metadata}}}}',
    ],
)
def test_what_is_built_of_the_same_parts_has_a_plan_too(query: str) -> None:
    answer, planned = Pair(shop()).ask(query)
    assert (answer.kind, planned) == ("success", True)


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        (PYTHON_SDK % "fs_user_id", {"userId": None}),
        (PYTHON_SDK % "fs_user_id", {"userId": 5}),
        (PYTHON_SDK % "fs_user_id", {"userId": "u-1", "audiences": ["a", 5]}),
        (PYTHON_SDK % "fs_user_id", {"userId": "u-1", "audiences": {"a": 1}}),
        ("query($n: Int) {audiences(first: $n) {totalCount}}", {"n": True}),
        ("query($n: Int) {audiences(first: $n) {totalCount}}", {"n": 2**31}),
        ("query($n: Int) {audiences(first: $n) {totalCount}}", {"n": -1}),
        ("query($name: String!) {audience(name: $name) {name}}", {}),
        ("query($n: Int = 1) {audiences(first: $n) {totalCount edges {cursor}}}", {}),
        ('query($name: String! = "a") {audience(name: $name) {name}}', {}),
        ('{customer(fs_user_id: "u-1", email: "x") {audiences {totalCount}}}', None),
        ("{customer {audiences {totalCount}}}", None),
        ('{customer(fs_user_id: "u-1") @include(if: true) {audiences {totalCount}}}', None),
        ('{customer(fs_user_id: "u-1") {audiences(states: ["nope"]) {totalCount}}}', None),
        ('{audiences(filter: {name_prefix: "a"}) {totalCount}}', None),
        ('{__type(name: "Query") {name}}', None),
    ],
)
def test_what_is_doubtful_is_left_to_the_executor(query: str, variables: dict[str, Any] | None) -> None:
    _, planned = Pair(shop()).ask(query, variables)
    assert not planned


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_a_failing_store_is_told_by_the_executor() -> None:
    pair = Pair(shop())
    query, variables = PYTHON_SDK % "fs_user_id", {"userId": "u-1", "audiences": ["a"]}
    assert pair.ask(query, variables)[1]
    pair.world.store.failure = OSError("disk")
    answer, planned = pair.ask(query, variables)
    assert (answer.kind, planned) == ("field_errors", False)


def test_a_plan_shows_a_segment_as_it_is_now() -> None:
    pair = Pair(shop())
    query = '{customer(fs_user_id: "u-1") {audiences {edges {node {name revision description external_audience_id}}}}}'
    before, _ = pair.ask(query)
    pair.world.catalog.define("a", "A", revision=4, description='"new"')
    after, planned = pair.ask(query)
    assert planned
    assert after.body != before.body
    pair.world.catalog.drop("a")
    assert pair.ask(query)[1]


@pytest.mark.parametrize(
    ("field", "user", "qualified"),
    [("size", "u-9", True), ("updated_at", "u-2", True), ("qualified_at", "u-2", True), ("state", "u-2", False)],
)
def test_what_changes_without_a_revision_is_not_remembered(field: str, user: str, qualified: bool) -> None:
    pair = Pair(shop())
    states = '["qualified", "not_qualified"]'
    query = f'{{customer(fs_user_id: "u-2") {{audiences(states: {states}, first: 1) {{edges {{node {{{field}}}}}}}}}}}'
    before, _ = pair.ask(query)
    pair.world.store.decide("fs_user_id", user, "A", qualified=qualified, ts_ms=9_000)
    after, planned = pair.ask(query)
    assert planned
    assert after.body != before.body


def test_an_operation_of_another_name_is_not_answered_by_the_plan() -> None:
    world = shop()
    query = "query Mine {audiences {totalCount}}"
    assert world.ask(query, operation_name="Mine").kind == "success"
    assert world.ask(query, operation_name="Other").kind == "request_error"
    assert world.engine.answered_by_plans == 1


def test_the_cost_of_a_planned_query_is_bounded_too() -> None:
    pair = Pair(shop())
    pair.planning = pair.engine(cost_max=20)
    pair.plain = pair.engine(cost_max=20, plans=False)
    query = PYTHON_SDK % "fs_user_id"
    assert pair.ask(query, {"userId": "u-1", "audiences": ["a"]})[1]
    assert pair.ask(query, {"userId": "u-1", "audiences": ["a"] * 30})[0].kind == "request_error"


def test_edges_are_remembered_within_bounds_and_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "EDGES_KEPT_MAX", 2)
    monkeypatch.setattr(writers, "EDGE_BYTES_MAX", 60)
    pair = Pair(shop())
    query = '{customer(fs_user_id: "u-1") {audiences(states: ["qualified", "not_qualified"]) {edges {node {%s}}}}}'
    for fields in ("name state", "name description metadata state"):
        for _ in range(3):
            assert pair.ask(query % fields)[1]


# Words of a document: `%s` takes a text, and one that is not plain is there to be refused or left to the executor.
TEXTS = ["a", "b", "C", "é", "u-1", "zz", "", "qualified", "not_qualified", "czE6YQ", "czE6Yg", "literal_0"]
TEXT = st.sampled_from(TEXTS).map(lambda text: f'"{text}"') | st.sampled_from(['"\\u0061"', '"""b"""', "null"])
LIST = st.lists(TEXT | st.just("$v"), max_size=4).map(lambda items: f"[{', '.join(items)}]")
NUMBER = st.sampled_from(["0", "1", "2", "-1", "null", "$n"])
NAMES = ["name", "state", "revision", "description", "is_ready", "size", "metadata", "external_audience_id"]
LEAF = st.sampled_from([*NAMES, "qualified_at", "updated_at", "__typename", "n: name", "s: state", "...F", "...{size}"])
DIRECTIVE = st.sampled_from(["", "", "", "", "", "", " @skip(if: false)", " @include(if: $b)"])


@st.composite
def connections(draw: st.DrawFn) -> str:
    node = st.builds("{{{}}}".format, st.lists(LEAF, min_size=1, max_size=5).map(" ".join))
    edge = st.just("cursor") | st.just("__typename") | node.map("node {}".format) | node.map("node {}".format)
    edges = st.lists(edge, min_size=1, max_size=3).map(lambda fields: f"{{{' '.join(fields)}}}")
    page = st.just("pageInfo {hasNextPage endCursor x: startCursor hasPreviousPage __typename}")
    parts = st.just("totalCount") | page | edges.map("edges {}".format) | edges.map("e: edges {}".format)
    return f"{{{' '.join(draw(st.lists(parts, min_size=1, max_size=3)))}}}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    values = {"subset": LIST | TEXT | st.just("$list"), "states": LIST, "first": NUMBER, "last": NUMBER}
    values |= {"after": TEXT | st.just("$v"), "before": TEXT}
    chosen = draw(st.lists(st.sampled_from(["subset", *values]), max_size=2, unique=True))
    arguments = ", ".join(f"{name}: {draw(values[name])}" for name in chosen)
    identifier = draw(st.sampled_from(["fs_user_id", "_email", "vuid", "fs_user_id"]))
    inside = f"{{audiences{f'({arguments})' if arguments else ''}{draw(DIRECTIVE)} {draw(connections())}}}"
    customer = f"customer({identifier}: {draw(TEXT | st.just('$v'))}) {inside}"
    other = draw(st.sampled_from(["", "", " __typename", " audiences(first: $n) {totalCount}"]))
    body = f"{draw(st.sampled_from(['', 'me: ']))}{customer}{other}"
    fragment = " fragment F on CustomerAudience {name updated_at}" if "...F" in body else ""
    types = {"$v": "String", "$n": "Int", "$list": draw(st.sampled_from(["[String]", "[String!]!"])), "$b": "Boolean!"}
    default = draw(st.sampled_from(["", "", "", ' = "a"']))
    declared = [f"{name}: {type_}{default if name == '$v' else ''}" for name, type_ in types.items() if name in body]
    head = f"query({', '.join(declared)})" if declared else "query"
    return f"{head} {{{body}}}{fragment}"


VALUES = st.fixed_dictionaries(
    {"b": st.booleans()},
    optional={
        "v": st.sampled_from([*TEXTS, "\x00", None, 5, ["a"]]),
        "n": st.sampled_from([0, 1, 2, -1, None, True, 1.0, 2**31, "1"]),
        "list": st.lists(st.sampled_from([*TEXTS, None]), max_size=4) | st.sampled_from([None, "a", [5], {"a": 1}]),
        "literal_0": st.just("b"),
    },
)
DECISION = st.tuples(st.sampled_from(["u-1", "a", "b"]), st.sampled_from("ABC"), st.booleans(), st.integers(0, 5))
REVISION = itertools.count(1)


@given(
    documents(),
    st.lists(VALUES, min_size=1, max_size=3),
    st.lists(DECISION, max_size=6),
    st.sets(st.sampled_from("abc")),
)
def test_a_planned_answer_is_the_executors(
    text: str, several: list[dict[str, Any]], decisions: list[tuple[str, str, bool, int]], defined: set[str]
) -> None:
    world = PAIR.world
    world.store.decisions.clear()
    world.catalog._segments.clear()
    for user, audience, qualified, ts_ms in decisions:
        world.store.decide("fs_user_id", user, audience, qualified=qualified, ts_ms=ts_ms)
    for name in defined:
        world.catalog.define(name, name.upper(), revision=next(REVISION), description="é\n", metadata={"k": name})
    for variables in several:
        PAIR.ask(text, variables)


PAIR = Pair(World())


@pytest.mark.parametrize("query", ["{}", "{#a\n}", "query {}", '{customer(fs_user_id: "u-1") {}}'])
def test_an_empty_selection_is_answered_as_the_executor_answers_it(query: str) -> None:
    answer, planned = Pair(shop()).ask(query)
    assert (answer.kind, planned) == ("success", False)
