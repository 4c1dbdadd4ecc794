"""Whichever road a request comes in by, log and metrics say the same of it, but for the road itself."""

import json
from io import StringIO
from typing import Any

import pytest
import structlog
import trio

from segmentd import logs
from segmentd.domain.segments import SegmentDefinition
from segmentd.settings import LogSettings, ServerSettings
from tests.http.conftest import start
from tests.http.test_roads import counts, said_to
from tests.http.traffic import plain_event, plain_query
from tests.http.world import World, settings_with

SENT = {
    "query": plain_query(b"x-request-id: a\r\ntraceparent: 00-ab-cd-01\r\n"),
    "event": plain_event(1, b"x-request-id: b\r\n"),
    "no key": plain_query(b"x-request-id: c\r\n").replace(b"test-public", b"test-nobody"),
    "no query": plain_query(b"x-request-id: d\r\n").replace(b'"query"', b'"queri"'),
    "no event": plain_event(1, b"x-request-id: e\r\n").replace(b'"action"', b'"aktion"'),
    "members": plain_query(b"x-request-id: f\r\n").replace(b"state}", b"size }").replace(b'"gold"', b'"members"'),
}


async def told(sent: bytes, nursery: trio.Nursery, *, lane: bool) -> tuple[list[dict[str, Any]], World]:
    """The lines of the log that were written for `sent`, without times, and the world that answered it."""
    stream = StringIO()
    logs.configure("json", "debug", stream)
    try:
        world = World(settings_with(server=ServerSettings(lane=lane), log=LogSettings(level="debug")))
        await world.catalog.put("gold", SegmentDefinition("audience_1", "", {}), None)
        server = await start(world, nursery)
        await said_to(server, sent)
        await server.client.aclose()
        server.stop.set()
        await server.stopped.wait()
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in lines:
        assert line.pop("seconds") >= 0
        del line["timestamp"]
    return lines, world


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_log_and_metrics_differ_in_the_road_alone(sent: bytes, nursery: trio.Nursery) -> None:
    (lane, over_lane), (main, over_main) = [await told(sent, nursery, lane=lane) for lane in (True, False)]
    assert [(line.pop("road"), line["event"]) for line in lane] == [("lane", "request")]
    assert [line.pop("road") for line in main] == ["main"]
    assert lane == main
    assert counts(over_lane) == counts(over_main)
    for world, road, other in ((over_lane, "lane", "main"), (over_main, "main", "lane")):
        assert world.metric("segmentd_http_requests_total", road=road) == 1
        assert world.metric("segmentd_http_requests_total", road=other) == 0


async def test_what_the_lane_hands_over_is_of_the_main_road(nursery: trio.Nursery) -> None:
    sent = plain_query() + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + plain_query()
    _, world = await told(sent, nursery, lane=True)
    assert world.metric("segmentd_http_requests_total", road="lane") == 1
    assert world.metric("segmentd_http_requests_total", road="main") == 2


async def test_answers_of_plans_are_counted(nursery: trio.Nursery) -> None:
    for lane in (True, False):
        _, world = await told(plain_query() + SENT["no query"], nursery, lane=lane)
        assert world.metric("segmentd_graphql_planned_total") == 1
