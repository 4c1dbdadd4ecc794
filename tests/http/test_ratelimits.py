"""Limits per key and per guessing address: buckets by the clock, 429 on both roads, nothing of it applied."""

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from segmentd import keyfile
from segmentd.http.auth import Keyring
from segmentd.http.ratelimits import GuessLimit, KeyQuotas, TokenBucket, client_address
from segmentd.settings import RatesSettings, ServerSettings
from tests.http.conftest import Served, start
from tests.http.world import PRIVATE, PUBLIC, World, event, hashed, header, read, settings_with

EVENTS = "/v3/events"
QUERY = b'{"query": "{ __typename }"}'


@given(
    st.floats(0.1, 1e5),
    st.floats(0.01, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1_000)), max_size=60),
)
def test_never_more_than_the_rate_and_one_bucket_and_one_request_goes_through(
    rate: float, seconds: float, asked: list[tuple[float, int]]
) -> None:
    now, taken, largest = 0.0, 0, 0
    bucket = TokenBucket(rate, seconds, now)
    for pause, tokens in asked:
        now += pause
        if not bucket.take(tokens, now):
            taken, largest = taken + tokens, max(largest, tokens)
    assert taken <= bucket.size + rate * now + largest + 1e-6


@given(st.floats(0.1, 1e5), st.floats(0.01, 100), st.integers(1, 10_000), st.integers(1, 10_000))
def test_who_waits_as_long_as_told_gets_what_was_asked_for(rate: float, seconds: float, first: int, then: int) -> None:
    bucket = TokenBucket(rate, seconds, 0.0)
    assert bucket.take(first, 0.0) == 0.0, "the first one finds a full bucket, however large it is"
    level = bucket.level(0.0)
    wait = bucket.take(then, 0.0)
    assert wait == 0.0 or bucket.level(0.0) == level, "who is told to wait has taken nothing"
    if wait:
        assert bucket.take(then, wait * (1 - 1e-6) - 1e-6) > 0.0
        assert bucket.take(then, wait) == 0.0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1, 1, 100.0)
    assert bucket.take(1, 100.0) == 0.0
    assert bucket.take(1, 50.0) > 0.0


def test_the_fields_are_those_of_the_draft() -> None:
    now = [0.0]
    quotas = KeyQuotas(5, 100, 10, lambda: now[0])
    assert quotas.headers() == (
        ("ratelimit-policy", '"requests";q=50;w=10, "events";q=1000;qu="events";w=10'),
        ("ratelimit", '"requests";r=50;t=0, "events";r=1000;t=0'),
    )
    assert quotas.requests is not None
    assert quotas.events is not None
    quotas.requests.take(7)
    quotas.events.take(1_500)
    assert quotas.headers()[1] == ("ratelimit", '"requests";r=43;t=2, "events";r=0;t=15')
    now[0] = 100.0
    assert quotas.headers()[1] == ("ratelimit", '"requests";r=50;t=0, "events";r=1000;t=0')


def limited(**rates: Any) -> World:
    """A world whose public key has limits and whose private key has none, with a clock that stands still."""
    plain = hashed("public", "test-public")
    settings = settings_with(
        keys={"web": msgspec.structs.replace(plain, **rates), "ops": hashed("private", "test-private")},
        rates=RatesSettings(burst_seconds=2),
    )
    return World(settings)


async def test_one_request_too_many_is_429_and_says_when(tmp_path: Path) -> None:
    world = limited(requests_per_second=0.5)
    assert (await world.ask("POST", "/v3/graphql", {**PUBLIC, "content-type": "application/json"}, QUERY)).status == 200
    before = world.state()
    answer = await world.ask("POST", EVENTS, PUBLIC, json.dumps(event()).encode())
    assert (answer.status, header(answer, "retry-after"), header(answer, "ratelimit")) == (
        429,
        "2",
        '"requests";r=0;t=2',
    )
    assert header(answer, "ratelimit-policy") == '"requests";q=1;w=2'
    assert "0.5 requests per second" in read(answer)["detail"]["message"]
    assert world.state() == before
    assert world.metric("segmentd_http_refusals_total", route=EVENTS, reason="RATE_LIMITED") == 1
    world.now_seconds += 2
    assert (await world.ask("POST", EVENTS, PUBLIC, json.dumps(event()).encode())).status == 202


async def test_events_are_counted_and_an_upload_larger_than_the_bucket_passes_when_it_is_full() -> None:
    world = limited(events_per_second=5)
    many = json.dumps([event(identifiers={"fs_user_id": f"u-{number}"}) for number in range(25)]).encode()
    assert (await world.ask("POST", EVENTS, PUBLIC, many)).status == 202
    before = world.state()
    refused = await world.ask("POST", EVENTS, PUBLIC, json.dumps(event(identifiers={"fs_user_id": "new"})).encode())
    assert (refused.status, header(refused, "retry-after")) == (429, "4"), "15 in debt, 1 needed, 5 a second"
    assert world.state() == before
    world.now_seconds += 4
    assert (await world.ask("POST", EVENTS, PUBLIC, json.dumps(event()).encode())).status == 202


async def test_queries_are_no_events_and_an_invalid_upload_takes_none() -> None:
    world = limited(events_per_second=1)
    for _ in range(5):
        answer = await world.ask("POST", "/v3/graphql", {**PUBLIC, "content-type": "application/json"}, QUERY)
        assert answer.status == 200
        assert (await world.ask("POST", EVENTS, PUBLIC, json.dumps(event(action="x")).encode())).status == 400
    assert header(answer, "ratelimit") == '"events";r=2;t=0'


async def test_what_the_store_refuses_is_given_back() -> None:
    from segmentd.domain.refusals import Overloaded

    world = limited(events_per_second=1)
    world.store.refusal = Overloaded("full", 1)
    for _ in range(5):
        assert (await world.ask("POST", EVENTS, PUBLIC, json.dumps([event(), event()]).encode())).status == 503
    world.store.refusal = None
    assert (await world.ask("POST", EVENTS, PUBLIC, json.dumps([event(), event()]).encode())).status == 202


async def test_other_keys_have_no_limit_and_no_fields() -> None:
    world = limited(requests_per_second=0.5)
    for _ in range(5):
        answer = await world.ask("GET", "/v3/segments", PRIVATE)
        assert (answer.status, header(answer, "ratelimit")) == (200, None)


async def test_the_configuration_gives_a_limit_to_keys_that_have_none_of_their_own(tmp_path: Path) -> None:
    path = keyfile.path_in(tmp_path)
    _, usual = keyfile.create(path, "public", "usual")
    _, own = keyfile.create(path, "public", "own", keyfile.Rates(requests_per_second=7))
    _, free = keyfile.create(path, "public", "free", keyfile.Rates(requests_per_second=0, events_per_second=0))
    keyring = Keyring({}, path, RatesSettings(requests_per_second=3, events_per_second=9, burst_seconds=1))
    found = [keyring.authenticate(secret) for secret in (usual, own, free)]
    assert [key and key.quotas and key.quotas.figures for key in found] == [(3, 9, 1), (7, 9, 1), None]


async def test_reading_the_key_file_again_fills_no_bucket(tmp_path: Path) -> None:
    path = keyfile.path_in(tmp_path)
    _, secret = keyfile.create(path, "public", "web", keyfile.Rates(requests_per_second=1))
    keyring = Keyring({}, path, RatesSettings(burst_seconds=1), clock=lambda: 0.0)
    key = keyring.authenticate(secret)
    assert key is not None
    assert key.quotas is not None
    assert key.quotas.requests is not None
    assert key.quotas.requests.take(1) == 0.0
    keyfile.create(path, "public", "other")
    assert keyring.refresh_if_changed()
    again = keyring.remembered(secret)
    assert again is not None, "a key that stays is still remembered"
    assert again.quotas is key.quotas
    keyfile.revoke(path, "web")
    assert keyring.refresh_if_changed()
    assert keyring.authenticate(secret) is None


async def test_guesses_end_in_429_and_a_key_in_use_goes_on() -> None:
    world = World(settings_with(rates=RatesSettings(wrong_keys_per_minute=3)))
    assert (await world.ask("GET", "/v3/segments", PRIVATE)).status == 200
    answers = [await world.ask("GET", "/v3/segments", {"x-api-key": f"guess-{number}"}) for number in range(5)]
    assert [answer.status for answer in answers] == [403, 403, 403, 429, 429]
    assert 1 <= int(header(answers[-1], "retry-after") or 0) <= 20
    assert world.metric("segmentd_http_refusals_total", route="/v3/segments", reason="TOO_MANY_WRONG_KEYS") == 2
    assert (await world.ask("GET", "/v3/segments", PRIVATE)).status == 200, "used before, so not guessed"
    assert (await world.ask("POST", EVENTS, PUBLIC, b"{}")).status == 429, "not used before: not even looked for"
    assert (await world.ask("GET", "/v3/segments")).status == 403, "no key is no guess"
    assert (await world.ask("GET", "/healthz", {"x-api-key": "x"})).status == 200


def test_addresses_that_guess_are_bounded_and_the_oldest_is_forgotten() -> None:
    now = [0.0]
    guesses = GuessLimit(1, 3, lambda: now[0])
    for last in (1, 2, 3, 1, 4):
        guesses.guessed(f"10.0.0.{last}")
    assert len(guesses) == 3
    waits = [guesses.wait_of(f"10.0.0.{last}") for last in (1, 2, 3, 4)]
    assert [wait > 0 for wait in waits] == [True, False, True, True]
    now[0] += math.ceil(waits[0])
    assert guesses.wait_of("10.0.0.1") == 0


def test_an_ipv6_network_is_one_client_and_a_name_is_bounded() -> None:
    guesses = GuessLimit(1, 10, lambda: 0.0)
    guesses.guessed("2001:db8::1")
    guesses.guessed("::ffff:10.0.0.1")
    guesses.guessed("x" * 10_000)
    assert [guesses.wait_of(one) > 0 for one in ("2001:db8::2", "2001:db8:0:1::1", "10.0.0.1", "fe80::1%eth0")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("forwarded", "proxies", "expected"),
    [
        (None, 0, "peer"),
        ("1.1.1.1", 0, "peer"),
        (None, 1, "peer"),
        ("evil, 1.1.1.1", 1, "1.1.1.1"),
        ("evil, 1.1.1.1,2.2.2.2", 2, "1.1.1.1"),
        ("1.1.1.1", 2, "1.1.1.1"),
    ],
)
def test_a_client_behind_proxies_is_who_the_outermost_trusted_one_saw(
    forwarded: str | None, proxies: int, expected: str
) -> None:
    assert client_address("peer", forwarded, proxies) == expected


@pytest.fixture(params=[True, False], ids=["lane", "main road"])
async def road(nursery: trio.Nursery, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    keys = {"web": msgspec.structs.replace(hashed("public", "test-public"), requests_per_second=0.001)}
    rates = RatesSettings(wrong_keys_per_minute=1, burst_seconds=3_600)
    server = await start(
        World(settings_with(keys=keys, rates=rates, server=ServerSettings(lane=request.param))), nursery
    )
    async with server.client:
        yield server
    server.stop.set()
    await server.stopped.wait()


async def test_both_roads_limit_keys_alike(road: Served) -> None:
    answers = [
        await road.client.post("/v3/graphql", headers=PUBLIC, json={"query": "{ __typename }"}) for _ in range(5)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit"][:14] for answer in answers] == [
        f'"requests";r={left}' for left in (2, 1, 0, 0, 0)
    ]
    assert answers[-1].headers["retry-after"] == "400"
    assert answers[-1].json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_both_roads_know_the_guessing_address(road: Served) -> None:
    statuses = [
        (await road.client.post(EVENTS, headers={"x-api-key": f"guess-{number}"}, json=event())).status_code
        for number in range(3)
    ]
    assert statuses == [403, 429, 429]
    assert road.world.store.memberships == {}
