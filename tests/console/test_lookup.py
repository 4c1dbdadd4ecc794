"""Status and look-up: what the console shows can be asked for by anybody with a private key, and by nobody else."""

from typing import Any

import msgspec
import pytest

from segmentd.domain.membership import v_of
from tests.http.world import PRIVATE, PUBLIC, World, definition, read

JSON = {**PRIVATE, "content-type": "application/json"}


async def looked_up(world: World, **identifier: str) -> tuple[int, Any]:
    answer = await world.ask("POST", "/v3/customers/lookup", JSON, msgspec.json.encode(identifier))
    return answer.status, read(answer)


def world_with(memberships: dict[str, int]) -> World:
    world = World()
    key = world.schema.key(world.schema.kinds["email"], "ann@example.com")
    world.store.memberships = {(key, audience): v for audience, v in memberships.items()}
    return world


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3/status"),
        ("GET", "/v3/status/traffic"),
        ("GET", "/v3/status/sizes?segments=a"),
        ("POST", "/v3/customers/lookup"),
    ],
)
async def test_only_a_private_key_sees_status_and_customers(method: str, path: str) -> None:
    world = World()
    for headers in ({}, PUBLIC, {"x-api-key": "wrong"}):
        answer = await world.ask(method, path, headers)
        assert (answer.status, read(answer)) == (403, {"message": "Forbidden"})


async def test_every_membership_is_shown_the_latest_decision_first() -> None:
    world = world_with({"b": v_of(2_000, True), "a": v_of(3_000, False), "c": v_of(1_000, True)})
    await world.ask("PUT", "/v3/segments/seg_b", PRIVATE, msgspec.json.encode(definition("b")))
    status, body = await looked_up(world, email="Ann@Example.com")
    assert status == 200
    assert (body["identifier"], body["value"], body["confidence"], body["total"]) == (
        *("email", "ann@example.com", "high"),
        3,
    )
    shown = [
        (one["audience_id"], one["state"], one["qualified_at"], one["updated_at"], one["source"], one["segment_ids"])
        for one in body["memberships"]
    ]
    assert shown == [
        ("a", "not_qualified", None, 3, "event", []),
        ("b", "qualified", 2, 2, "event", ["seg_b"]),
        ("c", "qualified", 1, 1, "event", []),
    ]


async def test_a_low_confidence_identifier_has_no_memberships() -> None:
    status, body = await looked_up(World(), vuid="v-1")
    assert (status, body["confidence"], body["memberships"]) == (200, "low", [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"email": 1}',
        b'{"email": "a", "fs_user_id": "b"}',
        b'{"shoe_size": "44"}',
        b'{"email": ""}',
        b'{"email": "a\\u0000b"}',
        b'{"email": "' + b"x" * 300 + b'"}',
        b'{"email": "\\ud800"}',
    ],
)
async def test_what_is_no_identifier_is_refused_with_a_reason(body: bytes) -> None:
    answer = await World().ask("POST", "/v3/customers/lookup", JSON, body)
    assert answer.status == 400
    assert read(answer)["message"]


async def test_the_status_tells_health_and_limits() -> None:
    world = World()
    world.store.broken = "the disk is gone"
    body = read(await world.ask("GET", "/v3/status", PRIVATE))
    assert body["not_ready"] == "Nothing can be written: the disk is gone"
    assert body["store"]["journal_records"] == 7
    assert {one["name"]: one["confidence"] for one in body["identifiers"]}["vuid"] == "low"
    assert body["limits"]["journal_bytes_max"] == world.settings.storage.journal_bytes_max


@pytest.mark.parametrize("query", ["", "?segments=", "?segments=" + ",".join(["a"] * 51)])
async def test_sizes_are_asked_for_by_name_and_not_too_many_at_once(query: str) -> None:
    assert (await World().ask("GET", f"/v3/status/sizes{query}", PRIVATE)).status == 400


async def test_a_time_that_is_no_number_is_refused() -> None:
    assert (await World().ask("GET", "/v3/status/traffic?since=yesterday", PRIVATE)).status == 400
