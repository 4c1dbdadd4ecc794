"""The document cache: it changes nothing but the time, and stays within its bounds."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from graphql import GraphQLError, graphql_sync, parse
from hypothesis import given
from hypothesis import strategies as st

from segmentd.graphql import documents
from segmentd.graphql.context import ReadContext
from segmentd.graphql.documents import TOKENS_A_DOCUMENT_MEAN, DocumentCache, Prepared
from segmentd.graphql.errors import RequestRefused
from segmentd.graphql.limits import DocumentLimits
from segmentd.graphql.literals import outline_of
from segmentd.graphql.schema import build_schema
from tests.graphql.fakes import IDENTIFIERS, World, shop

SCHEMA = build_schema(IDENTIFIERS)
LIMITS = DocumentLimits(document_bytes_max=100_000, tokens_max=1_000, depth_max=16, aliases_max=64, cost_max=50_000)


def cache_of(entries_max: int, nodes_max: int = 10_000, *, plans: bool = True) -> DocumentCache:
    return DocumentCache(SCHEMA, LIMITS, entries_max, nodes_max, plans=plans)


def is_refused(cache: DocumentCache, text: str) -> bool:
    try:
        cache.prepare(text)
    except RequestRefused:
        return True
    return False


def js_query(user: str, *names: str) -> str:
    subset = ",".join(f'"{name}"' for name in names)
    return (
        f'query {{customer(fs_user_id : "{user}") {{audiences(subset: [{subset}]) {{edges {{node {{name state}}}}}}}}}}'
    )


def test_texts_that_differ_in_literals_only_share_one_document() -> None:
    cache = cache_of(8)
    first = cache.prepare(js_query("u-1", "a", "b"))
    second = cache.prepare(js_query("u-2", "c", "ü"))
    assert first.document is second.document
    assert (first.literals, second.literals) == (["u-1", "a", "b"], ["u-2", "c", "ü"])
    assert len(cache) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{audience(name: "a") {name} } # "comment"',
        '{audience(name: """a""") {name}}',
        '{audience(name: "\\u0061") {name}}',
        '{audience(name: "a") {name}} fragment F on Query {audiences {totalCount}}'.replace("}} f", " ...F}} f"),
        'query A {audience(name: "a") {name}} query B {audience(name: "b") {name}}',
        'query($name: String = "a") {audience(name: $name) {name}}',
        '{audience(name: "a") {name} audience(name: "a") {size}}',
        'query($literal_0: String!) {one: audience(name: $literal_0) {name} two: audience(name: "b") {name}}',
        '"description" query A {audiences {totalCount}}',
    ],
)
def test_what_is_not_surely_the_same_is_kept_under_its_exact_text(text: str) -> None:
    cache = cache_of(8)
    if not is_refused(cache, text):
        prepared: Prepared = cache.prepare(text)
        assert not prepared.document.shared
        assert prepared.literals == []


def test_a_document_whose_conflict_depends_on_the_literals_is_not_shared() -> None:
    world = shop()
    same = '{audience(name: "a") {name} audience(name: "a") {size}}'
    other = '{audience(name: "a") {name} audience(name: "b") {size}}'
    assert world.data(same) == {"audience": {"name": "a", "size": 3}}
    assert world.code(other) == "VALIDATION_ERROR"
    assert world.data(same) == {"audience": {"name": "a", "size": 3}}


def test_an_unbalanced_text_has_no_outline() -> None:
    assert outline_of('{a(x: "b)}') is None
    assert outline_of("{a}") is None
    assert outline_of('{a(x: "b\n")}') is None


def test_the_cache_keeps_the_most_recently_used_documents() -> None:
    cache = cache_of(2)
    hot = cache.prepare("{audiences {totalCount}}").document
    for number in range(5):
        cache.prepare(f"{{x{number}: audiences {{totalCount}}}}")
        assert cache.prepare("{audiences {totalCount}}").document is hot
    assert len(cache) == 2


def test_bad_documents_are_not_kept_and_drive_nothing_out() -> None:
    cache = cache_of(2)
    hot = cache.prepare("{audiences {totalCount}}").document
    for number in range(10):
        assert is_refused(cache, f"{{nope{number}}}")
        assert is_refused(cache, f"{{audiences {{totalCount}} {number}")
    assert cache.prepare("{audiences {totalCount}}").document is hot
    assert len(cache) == 1


def test_many_large_documents_do_not_fill_the_memory() -> None:
    cache = cache_of(2)
    # Two of these have more tokens together than the cache may keep.
    fields = " ".join(f"a{number}: totalCount" for number in range(TOKENS_A_DOCUMENT_MEAN // 3 + 10))
    for name in "wxyz":
        cache.prepare(f"{{{name}: audiences {{{fields}}}}}")
    assert len(cache) == 1


def test_a_document_too_large_to_keep_drives_nothing_out() -> None:
    cache = cache_of(1)
    hot = cache.prepare("{audiences {totalCount}}").document
    cache.prepare("{audiences {" + "__typename " * 60 + "totalCount " * 80 + "}}")
    assert cache.prepare("{audiences {totalCount}}").document is hot


@pytest.mark.parametrize(
    ("text", "parsed", "validated"),
    [
        ("{audiences {" + "nope " * 20 + "}}", 2, 1),
        ("{audiences {totalCount}}", 2, 1),
        ('{audience(name: "a") {name}}', 1, 1),
        ('{audience(name: "a") {nope}}', 2, 2),
        ("{audiences {...F}} fragment F on AudienceConnection {nope}", 2, 2),
    ],
)
def test_an_unknown_text_is_looked_at_few_times(
    monkeypatch: pytest.MonkeyPatch, text: str, parsed: int, validated: int
) -> None:
    """Each look at a text of `tokens_max` tokens stops the loop for tens of milliseconds."""
    counts = Counter[str]()
    for name in ("parse", "validate"):
        monkeypatch.setattr(documents, name, counting(counts, getattr(documents, name), name))
    is_refused(cache_of(8), text)
    assert counts == {"parse": parsed, "validate": validated}


def counting(counts: Counter[str], function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        counts[name] += 1
        return function(*arguments, **named)

    return counted


def test_by_default_thousands_of_unknown_fields_are_refused_before_they_are_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = Counter[str]()
    monkeypatch.setattr(documents, "parse", counting(counts, parse, "parse"))
    text = "{audiences {" + " ".join(f"nope{number}" for number in range(2_000)) + "}}"
    assert World().code(text) == "TOO_MANY_TOKENS"
    assert counts == {}


def test_by_default_a_pasted_subset_of_a_thousand_names_is_answered() -> None:
    answer = World().ask(js_query("u-1", *(f"segment_{number}" for number in range(1_000))))
    assert answer.kind == "success"


LITERALS = st.sampled_from(
    [
        *('"a"', '"b"', '"C"', '"u-1"', '""', '"zz"', '"é"', '"czE6YQ"', '"qualified"', '"Query"', '"}"', '"$v"'),
        *(
            '"#"',
            '"\\u0061"',
            '"a\\"b"',
            '"""a"""',
            '"""\n  b\n"""',
            '"a',
            '"a\nb"',
            "null",
            "5",
            "true",
            "$v",
            "$n",
            "a",
        ),
        *('["a", "b"]', '["c", null, "A", "c"]', '[["a"]]', "[]", "[$v]", '{name_prefix: "a"}', '{nope: "a"}', '" "'),
    ]
)
SHAPES = [
    "{customer(fs_user_id: %) {audiences(subset: [%, %]) {edges {node {name state}}}}}",
    "query {customer(fs_user_id : %) {audiences(subset: %) {edges {cursor node {name updated_at}}}}}",
    "query($v: String) {customer(fs_user_id: $v, email: %) {audiences(subset: %) {totalCount}}}",
    "query($v: String = %, $n: Int) {customer(email: $v) {audiences(first: $n, after: %) {totalCount}}}",
    "query A($v: String) {audiences(filter: {name_contains: %, name_prefix: $v}) {edges {node {name}}}}",
    "query A {audiences(filter: %) {totalCount}} query B {audience(name: %) {name}}",
    "{audience(name: %) {name} audience(name: %) {size}}",
    "{x: audience(name: %) {...F} y: audience(name: %) {...F}} fragment F on Audience {name}",
    "{audience(name: %) @include(if: %) {name} audiences {totalCount @skip(if: true) edges {cursor}}}",
    "{ # a %\n audience(name: %) {name}}",
    "query($v: String!) {one: audience(name: $v) {name} two: audience(name: %) {... on Audience {size}}}",
    "{__type(name: %) {name} audiences(after: %, first: 1) {totalCount edges {cursor}}}",
    "% query {audience(name: %) {name}}",
    "{customer(_email: %) {audiences(states: [%]) {edges {node {name}}}}} %",
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    first, *others = draw(st.sampled_from(SHAPES)).split("%")
    return str(first) + "".join(draw(LITERALS) + other for other in others)


def plain_answer(world: World, text: str, variables: dict[str, Any], operation_name: str | None) -> Any:
    """What graphql-core says, without any of ours in between: data, and (message, locations, path) of the errors."""
    context = ReadContext(world.store, world.catalog, IDENTIFIERS, "public")
    result = graphql_sync(SCHEMA, text, context_value=context, variable_values=variables, operation_name=operation_name)
    return result.data, [_told(error) for error in result.errors or []]


def _told(error: GraphQLError) -> tuple[str, list[tuple[int, int]], list[str] | None]:
    locations = [(at.line, at.column) for at in error.locations or []]
    return error.message, locations, None if error.path is None else [str(step) for step in error.path]


def cached_answer(world: World, text: str, variables: dict[str, Any], operation_name: str | None) -> Any:
    body = world.ask(text, variables, operation_name).body
    errors = [
        (
            error["message"],
            [(at["line"], at["column"]) for at in error.get("locations", [])],
            error.get("path"),
        )
        for error in body.get("errors", [])
    ]
    return body.get("data"), errors


VARIABLES = st.fixed_dictionaries(
    {}, optional={"v": st.sampled_from(["a", "u-1", "", None, 5]), "n": st.sampled_from([0, 1, -1, None, "x"])}
)


@given(st.lists(texts(), min_size=1, max_size=4), VARIABLES, st.sampled_from([None, "A", "B"]))
def test_a_cached_answer_is_the_plain_answer(
    several: list[str], variables: dict[str, Any], operation_name: str | None
) -> None:
    for text in several * 2:
        expected = plain_answer(WARM, text, variables, operation_name)
        assert cached_answer(WARM, text, variables, operation_name) == expected


WARM = shop()
