"""Metrics and the OpenAPI document."""

import json
import re
from typing import Any

import pytest

from segmentd.http.openapi import document
from segmentd.settings import LimitsSettings
from tests.http.world import PRIVATE, PUBLIC, World, definition, event, header, read, settings_with

METHODS = {"get", "put", "post", "delete"}


async def scrape(world: World, accept: str = "") -> str:
    answer = await world.ask("GET", "/metrics", {"accept": accept})
    assert answer.status == 200
    return answer.body.decode()


async def test_metrics_need_no_key_and_tell_no_names(world: World) -> None:
    await world.ask("POST", "/v3/events", PUBLIC, json.dumps(event()).encode())
    await world.ask("PUT", "/v3/segments/gold", PRIVATE, json.dumps(definition()).encode())
    await world.ask("GET", "/v3/segments/a_secret_name", PRIVATE)
    await world.ask("GET", "/some/where", PRIVATE)
    await world.ask("BREW", "/v3/segments", PRIVATE)
    text = await scrape(world)
    for name in ("gold", "audience_1", "u-17", "test-p", "a_secret_name", "some/where", "BREW"):
        assert name not in text


async def test_requests_are_measured_by_route_method_and_status(world: World) -> None:
    await world.ask("GET", "/v3/segments/gold", PRIVATE)
    await world.ask("GET", "/v3/segments/silver", PRIVATE)
    await world.ask("GET", "/nowhere")
    labels = {"route": "/v3/segments/{segment_id}", "method": "GET", "status": "404"}
    assert world.metric("segmentd_http_request_seconds_count", **labels) == 2
    labels = {"route": "unmatched", "method": "GET", "status": "404"}
    assert world.metric("segmentd_http_request_seconds_count", **labels) == 1


async def test_the_store_is_asked_at_each_scrape(world: World) -> None:
    assert "segmentd_memberships 0.0" in await scrape(world)
    await world.ask("POST", "/v3/events", PUBLIC, json.dumps(event()).encode())
    await world.ask("PUT", "/v3/segments/gold", PRIVATE, json.dumps(definition()).encode())
    text = await scrape(world)
    for name, value in {
        "memberships": 1,
        "identifiers": 1,
        "audiences": 1,
        "segments": 1,
        "journal_records": 7,
    }.items():
        assert f"segmentd_{name} {value}.0" in text


async def test_commits_and_checkpoints_are_measured(world: World) -> None:
    world.telemetry.committed(requests=3, changes=1_500, journal_bytes=60_000, seconds=0.002)
    world.telemetry.checkpointed(changes=10_000, seconds=0.5)
    world.telemetry.commit_failed()
    world.telemetry.checkpoint_failed()
    for name, value in {
        "segmentd_commit_requests_sum": 3,
        "segmentd_commit_changes_sum": 1_500,
        "segmentd_commit_journal_bytes_sum": 60_000,
        "segmentd_commit_seconds_count": 1,
        "segmentd_commit_failures_total": 1,
        "segmentd_checkpoint_changes_sum": 10_000,
        "segmentd_checkpoint_seconds_sum": 0.5,
        "segmentd_checkpoint_failures_total": 1,
    }.items():
        assert world.metric(name) == value


async def test_prometheus_gets_its_text_and_openmetrics_if_it_asks(world: World) -> None:
    assert "segmentd_build_info{" in await scrape(world)
    assert (await scrape(world, "application/openmetrics-text; version=1.0.0")).endswith("# EOF\n")


async def test_the_document_describes_exactly_the_routes(world: World) -> None:
    answer = await world.ask("GET", "/openapi.json")
    assert header(answer, "content-type") == "application/json"
    described = {path: METHODS & operations.keys() for path, operations in read(answer)["paths"].items()}
    served = {route.template: {method.lower() for method in route.operations} for route in world.app.edge.routes}
    assert described == served


def references(node: Any) -> list[str]:
    """Every `$ref` below `node`."""
    if isinstance(node, dict):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [name for value in node.values() for name in references(value)]
    return [name for value in node for name in references(value)] if isinstance(node, list) else []


def test_every_reference_in_the_document_leads_somewhere_and_every_schema_is_used() -> None:
    described = document(settings_with())
    names = {re.sub(r"^#/components/", "", name) for name in references(described)}
    there = {f"{kind}/{name}" for kind in ("schemas", "headers") for name in described["components"][kind]}
    assert names == there


def test_every_operation_has_its_own_name_and_tells_of_errors() -> None:
    operations = [
        operation
        for path in document(settings_with())["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    ]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all({"405", "500"} <= operation["responses"].keys() for operation in operations)


@pytest.mark.parametrize("limit", [7, 500])
def test_the_document_names_the_limits_of_this_server(limit: int) -> None:
    described = document(settings_with(limits=LimitsSettings(events_per_request_max=limit)))
    many = described["components"]["schemas"]["Events"]["anyOf"][1]
    assert many["maxItems"] == limit
    assert str(limit) in described["paths"]["/v3/events"]["post"]["summary"]
