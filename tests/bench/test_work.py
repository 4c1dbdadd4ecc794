"""What is sent is what the SDKs send, and the truth that answers are compared with is right."""

import json
from typing import Any
from unittest.mock import patch

from graphql import parse
from hypothesis import given
from hypothesis import strategies as st
from optimizely.odp.odp_segment_api_manager import OdpSegmentApiManager

from bench import world
from bench.texts import javascript_sdk_body, python_sdk_body
from bench.work import QUESTIONS, QueryWork, questions_of

SEGMENTS = ["segment_0", "segment_1"]


def test_the_python_body_is_the_installed_sdks_body() -> None:
    with patch("requests.post") as post:
        OdpSegmentApiManager().fetch_segments("key", "http://host", "fs_user_id", "user-1", SEGMENTS)
    assert python_sdk_body("user-1", SEGMENTS) == post.call_args.kwargs["data"]


def test_the_javascript_body_is_json_with_the_values_pasted_into_a_legal_document() -> None:
    body: dict[str, Any] = json.loads(javascript_sdk_body("user-1", SEGMENTS))
    assert list(body) == ["query"]
    assert body["query"] == (
        'query {customer(fs_user_id : "user-1") '
        '{audiences(subset: ["segment_0","segment_1"]) {edges {node {name state}}}}}'
    )
    parse(body["query"])


@given(st.integers(0, 10**10))
def test_four_of_the_five_memberships_are_qualifications_and_show_as_segments(number: int) -> None:
    memberships = world.memberships_of(number)
    qualified = sorted(audience for audience, v in memberships if v % 2 == 0)
    assert len({audience for audience, _ in memberships}) == world.MEMBERSHIPS_PER_IDENTIFIER == 5
    assert len(qualified) == 4
    shown = world.segments_of(number, range(world.AUDIENCES))
    assert shown == [world.SEGMENT_IDS[audience] for audience in qualified]


def test_hits_have_an_answer_and_misses_have_none() -> None:
    empty = world.answer_of([])
    hits = questions_of(QueryWork(audiences=1), 100_000)
    misses = questions_of(QueryWork(hits=False), 100_000)
    assert len(hits) == len(misses) == QUESTIONS
    assert all(question.answer != empty for question in hits)
    assert all(question.answer == empty for question in misses)
