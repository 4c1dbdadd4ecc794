"""POST /v3/events through the edge: forms of upload, the 202, and what is counted."""

import gzip
import json

import pytest
import trio
import zstandard

from segmentd.domain.refusals import LimitReached, Overloaded, ShuttingDown, StoreUnavailable
from segmentd.http.inflation import MEMBERS_MAX
from segmentd.settings import LimitsSettings
from tests.http.world import PRIVATE, PUBLIC, World, event, header, read, settings_with

ONE = json.dumps(event()).encode()
KEY = b"\x00u-17"


async def test_an_event_is_applied_and_answered_with_202(world: World) -> None:
    answer = await world.ask("POST", "/v3/events", PUBLIC, ONE)
    assert answer.status == 202
    assert read(answer) == {"title": "Accepted", "status": 202, "timestamp": "2026-11-23T15:22:40.450Z"}
    assert world.store.memberships == {(KEY, "audience_1"): 1_748_851_070_000 * 2}


@pytest.mark.parametrize("headers", [PUBLIC, PRIVATE])
async def test_both_kinds_of_key_may_send_events(world: World, headers: dict[str, str]) -> None:
    assert (await world.ask("POST", "/v3/events", headers, ONE)).status == 202


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'],
)
async def test_json_is_taken_with_and_without_a_content_type(world: World, content_type: str | None) -> None:
    headers = PUBLIC if content_type is None else {**PUBLIC, "content-type": content_type}
    assert (await world.ask("POST", "/v3/events", headers, ONE)).status == 202
    assert len(world.store.memberships) == 1


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/ndjson; charset=utf-8"])
async def test_ndjson_is_one_event_a_line(world: World, content_type: str) -> None:
    lines = b"\n".join(json.dumps(event(identifiers={"fs_user_id": f"u-{n}"})).encode() for n in range(3))
    answer = await world.ask("POST", "/v3/events", {**PUBLIC, "content-type": content_type}, lines + b"\n")
    assert answer.status == 202
    assert len(world.store.memberships) == 3


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(ONE)),
        ("X-GZIP", gzip.compress(ONE)),
        ("identity, gzip", gzip.compress(ONE)),
        ("gzip", gzip.compress(ONE[:40]) + gzip.compress(ONE[40:])),
        ("gzip", gzip.compress(ONE) + b"\x00" * 100),
        ("zstd", zstandard.compress(ONE)),
        ("zstd", zstandard.compress(ONE[:40]) + zstandard.compress(ONE[40:])),
        ("identity", ONE),
        ("", ONE),
    ],
)
async def test_compressed_uploads_mean_the_same(world: World, encoding: str, body: bytes) -> None:
    answer = await world.ask("POST", "/v3/events", {**PUBLIC, "content-encoding": encoding}, body)
    assert answer.status == 202
    assert (KEY, "audience_1") in world.store.memberships


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("gzip", gzip.compress(ONE)[:-5], "ends too early"),
        ("gzip", gzip.compress(ONE) + b"more", "other bytes follow"),
        ("gzip", ONE, "no valid gzip"),
        ("gzip", b"", "ends too early"),
        ("gzip", gzip.compress(b"") * (MEMBERS_MAX + 1), f"more than {MEMBERS_MAX} gzip members"),
        ("zstd", zstandard.compress(ONE)[:-5], "ends too early"),
        ("zstd", ONE, "no valid zstd"),
        ("zstd", zstandard.compress(b"x") * (MEMBERS_MAX + 1), f"more than {MEMBERS_MAX} zstd frames"),
    ],
)
async def test_a_torn_or_wrong_compression_is_400(world: World, encoding: str, body: bytes, reason: str) -> None:
    answer = await world.ask("POST", "/v3/events", {**PUBLIC, "content-encoding": encoding}, body)
    assert answer.status == 400
    assert reason in read(answer)["detail"]["message"]
    assert not world.store.memberships


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
async def test_a_bomb_is_413_and_names_the_limit(compress: object) -> None:
    world = World(settings_with(limits=LimitsSettings(events_inflated_bytes_max=10_000)))
    assert callable(compress)
    headers = {**PUBLIC, "content-encoding": "gzip" if compress is gzip.compress else "zstd"}
    answer = await world.ask("POST", "/v3/events", headers, compress(b" " * 50_000_000))
    assert answer.status == 413
    assert "10000 bytes ([limits] events_inflated_bytes_max)" in read(answer)["detail"]["message"]
    assert read(answer)["detail"]["limit"] == 10_000


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "compress"])
async def test_other_encodings_are_415_and_name_what_is_read(world: World, encoding: str) -> None:
    answer = await world.ask("POST", "/v3/events", {**PUBLIC, "content-encoding": encoding}, ONE)
    assert answer.status == 415
    assert "accepted: gzip, zstd, identity" in read(answer)["detail"]["message"]


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (Overloaded("The queue is full.", 3), 503, "3"),
        (ShuttingDown("The service is shutting down.", 1), 503, "1"),
        (StoreUnavailable("The disk is full.", 5), 503, "5"),
        (LimitReached("data.audience_id", "There are too many audiences.", "audiences_max", 10), 400, None),
    ],
)
async def test_what_the_store_refuses_is_told(
    world: World, refusal: Exception, status: int, retry_after: str | None
) -> None:
    world.store.refusal = refusal
    answer = await world.ask("POST", "/v3/events", PUBLIC, ONE)
    assert answer.status == status
    assert header(answer, "retry-after") == retry_after
    assert read(answer)["detail"]["message"] == str(refusal)
    assert world.metric("segmentd_events_total", action="qualify", outcome="refused") == 1


async def test_events_of_other_types_are_accepted_and_dropped(world: World) -> None:
    body = json.dumps({"type": "fullstack", "action": "identified", "identifiers": {"vuid": "v"}, "data": {}})
    assert (await world.ask("POST", "/v3/events", PUBLIC, body.encode())).status == 202
    assert not world.store.memberships
    assert world.metric("segmentd_events_total", action="other", outcome="dropped") == 1


async def test_events_are_counted_by_action_and_outcome(world: World) -> None:
    events = [event(), event(action="disqualify"), event(action="disqualify")]
    await world.ask("POST", "/v3/events", PUBLIC, json.dumps(events).encode())
    await world.ask("POST", "/v3/events", PUBLIC, json.dumps([event(action="x"), event()]).encode())
    assert world.metric("segmentd_events_total", action="qualify", outcome="accepted") == 1
    assert world.metric("segmentd_events_total", action="disqualify", outcome="accepted") == 2
    assert world.metric("segmentd_events_total", action="unknown", outcome="invalid") == 1
    assert world.metric("segmentd_http_refusals_total", route="/v3/events", reason="INVALID_EVENTS") == 1


async def test_every_invalid_event_is_listed_up_to_the_limit() -> None:
    world = World(settings_with(limits=LimitsSettings(invalids_listed_max=2)))
    events = [event(action="x"), event(), event(type=7), event(identifiers={})]
    answer = await world.ask("POST", "/v3/events", PUBLIC, json.dumps(events).encode())
    assert answer.status == 400
    detail = read(answer)["detail"]
    assert [invalid["event"] for invalid in detail["invalids"]] == [0, 2]
    assert detail["message"].endswith("the first 2 are listed")
    assert not world.store.memberships


async def test_large_bodies_take_turns_with_everything_else(world: World) -> None:
    crowd, turns = 50, 0
    body = json.dumps([event(identifiers={"fs_user_id": f"u-{n}"}) for n in range(200)]).encode()
    answered: list[int] = []

    async def send() -> None:
        answered.append((await world.ask("POST", "/v3/events", PUBLIC, body)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(crowd):
            nursery.start_soon(send)
        while len(answered) < crowd:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert set(answered) == {202}
    assert turns >= crowd


async def test_a_large_body_is_refused_before_it_is_parsed_where_there_is_no_room(world: World) -> None:
    world.store.full = Overloaded("Too many writes are waiting; send it again.", 1)
    answer = await world.ask("POST", "/v3/events", PUBLIC, b"[" * 10_000)
    assert (answer.status, header(answer, "retry-after")) == (503, "1")
