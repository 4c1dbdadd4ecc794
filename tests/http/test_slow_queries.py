"""Slow queries are told of on both roads, in bounded lines that say nothing of whom was asked about."""

import json
from io import StringIO
from typing import Any

import pytest
import structlog
import trio

from segmentd import logs
from segmentd.domain.segments import SegmentDefinition
from segmentd.http.exchange import Answer, Request
from segmentd.http.slowqueries import Described, SlowQueries
from segmentd.settings import LogSettings, ServerSettings
from tests.http.conftest import start
from tests.http.test_roads import said_to
from tests.http.world import World, settings_with

EVERY = LogSettings(slow_query_ms_min=0.000_001, slow_query_lines_per_second_max=1_000)
SECRET = "test-public"


def asked(query: str, variables: dict[str, Any] | None = None, name: str | None = None) -> bytes:
    body = json.dumps({"query": query, "variables": variables, "operationName": name}).encode()
    head = f"POST /v3/graphql HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def customer(user: str) -> str:
    return f'query Home {{ customer(fs_user_id: "{user}") {{ audiences {{ edges {{ node {{ name }} }} }} }} }}'


async def told(sent: bytes, nursery: trio.Nursery, log: LogSettings, *, lane: bool = True) -> tuple[list[Any], World]:
    """The lines about slow queries, and the world."""
    stream = StringIO()
    logs.configure("json", "info", stream)
    try:
        world = World(settings_with(server=ServerSettings(lane=lane), log=log))
        await world.catalog.put("gold", SegmentDefinition("audience_1", "", {}), None)
        server = await start(world, nursery)
        await said_to(server, sent)
        await server.client.aclose()
        server.stop.set()
        await server.stopped.wait()
    finally:
        structlog.reset_defaults()
    return [json.loads(line) for line in stream.getvalue().splitlines()], world


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "main"])
async def test_a_line_says_what_was_slow_and_not_whom_it_was_about(nursery: trio.Nursery, lane: bool) -> None:
    by_variable = "query Home($u: String) { customer(fs_user_id: $u) { audiences { edges { node { name } } } } }"
    sent = [customer("ada@mail.example"), customer("bob"), "{ __schema { queryType { name } } }", "{ nonsense }"]
    requests = [asked(text) for text in sent] + [asked(by_variable, {"u": "mallory"}, "Home")]
    lines, world = await told(b"".join(requests), nursery, EVERY, lane=lane)
    assert [(line["event"], line["level"], line["road"]) for line in lines] == [
        ("slow query", "warning", "lane" if lane else "main")
    ] * len(requests)
    assert [line["answered_by"] for line in lines] == ["plan", "plan", "executor", "refused", "plan"]
    assert [line["operation"] for line in lines] == ["Home", "Home", None, None, "Home"]
    hashes = [line["document"] for line in lines]
    assert hashes[0] == hashes[1], "pasted literals make no other document"
    assert len(set(hashes)) == 4
    assert all(line["seconds"] > 0 and line["request_id"] and line["bytes_out"] > 0 for line in lines)
    text = json.dumps(lines)
    assert not [word for word in ("ada@", "bob", "mallory", SECRET) if word in text]
    assert world.metric("segmentd_graphql_slow_total") == len(requests)


@pytest.mark.parametrize(
    "log", [LogSettings(slow_query_ms_min=0), LogSettings(slow_query_ms_min=3_600_000)], ids=["off", "quick"]
)
async def test_what_is_quick_and_what_is_switched_off_is_not_told(nursery: trio.Nursery, log: LogSettings) -> None:
    lines, world = await told(asked(customer("ada")), nursery, log)
    assert lines == []
    assert world.metric("segmentd_graphql_slow_total") == 0


@pytest.mark.parametrize("name", ["A" * 1_000, "a\nlevel=error", "\x1b[2J", "ada@mail.example"])
async def test_an_operation_name_is_a_name_of_bounded_length_or_left_out(nursery: trio.Nursery, name: str) -> None:
    [line], _ = await told(asked("query A { __typename }", name=name), nursery, EVERY)
    assert line["operation"] in ("A" * 64, None)


async def test_only_queries_are_told_of(nursery: trio.Nursery) -> None:
    lines, _ = await told(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", nursery, EVERY)
    assert lines == []


def test_lines_are_bounded_a_second_and_those_left_out_are_counted() -> None:
    stream, now, counted = StringIO(), [100.0], []
    logs.configure("json", "info", stream)
    try:
        slow = SlowQueries(
            LogSettings(slow_query_lines_per_second_max=2),
            lambda _: Described("plan"),
            lambda: counted.append(1),
            lambda: now[0],
        )
        for at, many in ((100.0, 5), (100.9, 1), (101.0, 1), (102.5, 1)):
            now[0] = at
            for _ in range(many):
                slow.tell(Request("POST", "/v3/graphql", "", {}), Answer(200, b"{}"), 1.0)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("lines_left_out") for line in lines] == [None, None, 4, None]
    assert len(counted) == 8
