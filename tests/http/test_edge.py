"""What every request meets: request ids, keys and rights, methods, error shapes, CORS, readiness, logs."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import pytest
import structlog

from segmentd import logs
from segmentd.domain import refusals
from segmentd.domain.events import Change
from segmentd.domain.refusals import Refusal
from segmentd.http import errors
from segmentd.http.errors import STATUS_OF, EdgeRefusal, status_of, timestamp
from segmentd.settings import CorsSettings, LogSettings
from tests.http.world import PRIVATE, PUBLIC, MemoryStore, World, definition, event, header, read, settings_with

ONE = json.dumps(event()).encode()
PROBLEM = {"accept": "application/problem+json, application/json;q=0.5"}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("json", "debug", stream)
    yield stream
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def all_refusals(base: type[Refusal]) -> Iterator[type[Refusal]]:
    for found in base.__subclasses__():
        yield found
        yield from all_refusals(found)


def test_every_refusal_has_a_status() -> None:
    known = list(all_refusals(Refusal))
    assert refusals.Overloaded in known
    assert errors.RequestTimeout in known
    for refusal in known:
        if refusal is not EdgeRefusal:
            assert any(base in STATUS_OF for base in refusal.__mro__), refusal


def test_a_refusal_without_a_row_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        status_of(Refusal("x"))


def test_timestamps_are_utc_with_milliseconds() -> None:
    assert timestamp(1_795_447_360.45) == "2026-11-23T15:22:40.450Z"
    assert timestamp(0.0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("given", ["a", "req-1", "b7ad6b7169203331/1", "x" * 128])
async def test_a_sane_request_id_is_kept(world: World, given: str) -> None:
    assert header(await world.ask("GET", "/healthz", {"x-request-id": given}), "x-request-id") == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\nb", "a, b", "é", '"'])
async def test_an_odd_request_id_is_replaced(world: World, given: str) -> None:
    made = header(await world.ask("GET", "/healthz", {"x-request-id": given}), "x-request-id")
    assert made
    assert made != given


@pytest.mark.parametrize(
    "key", [{}, {"x-api-key": ""}, {"x-api-key": "wrong"}, {"x-api-key": "test-public, test-private"}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v3/events"), ("POST", "/v3/graphql"), ("GET", "/v3/graphql"), ("GET", "/v3/segments"),
     ("PUT", "/v3/segments/gold"), ("DELETE", "/v3/segments/gold"), ("POST", "/v3/segments/gold:validate")],
)  # fmt: skip
async def test_without_a_good_key_everything_is_forbidden(
    world: World, key: dict[str, str], method: str, path: str
) -> None:
    answer = await world.ask(method, path, key, ONE)
    assert (answer.status, answer.body) == (403, b'{"message":"Forbidden"}')
    assert header(answer, "x-request-id")
    assert world.state() == ({}, {})


@pytest.mark.parametrize(("method", "path"), [("GET", "/v3/segments"), ("PUT", "/v3/segments/gold")])
async def test_a_public_key_does_not_open_the_segments_api(world: World, method: str, path: str) -> None:
    answer = await world.ask(method, path, PUBLIC, json.dumps(definition()).encode())
    assert (answer.status, answer.body) == (403, b'{"message":"Forbidden"}')
    assert not world.catalog.segments


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v3/events", "OPTIONS, POST"),
        ("DELETE", "/v3/graphql", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "/v3/segments/gold", "DELETE, GET, HEAD, OPTIONS, POST, PUT"),
        ("BREW", "/v3/segments", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("GET", "/v3/segments/gold:validate", "OPTIONS, POST"),
    ],
)
async def test_another_method_is_405_with_allow(world: World, method: str, path: str, allow: str) -> None:
    answer = await world.ask(method, path, PRIVATE)
    assert (answer.status, header(answer, "allow")) == (405, allow)
    assert allow in answer.body.decode()


@pytest.mark.parametrize(
    "path", ["//", "/nowhere", "/v3", "/v3/segments//", "/v3/segments/a/b", "/v3/events/x", "*", "/v3%2Fevents", "/%ff"]
)
async def test_another_path_is_404_in_json(world: World, path: str) -> None:
    answer = await world.ask("GET", path, PRIVATE)
    assert answer.status == 404
    assert read(answer)["message"] == f"Nothing is served at {path}."
    assert read(answer)["request_id"] == header(answer, "x-request-id")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/v3/events", b"{", 400, "MALFORMED_BODY"),
        ("POST", "/v3/events", b'{"type": 7}', 400, "INVALID_EVENTS"),
        ("GET", "/v3/segments/gold", b"", 404, "SEGMENT_NOT_FOUND"),
        ("GET", "/nowhere", b"", 404, "NO_SUCH_PATH"),
        ("GET", "/v3/graphql", b"", 406, "NOT_ACCEPTABLE"),
        ("GET", "/v3/events", b"", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_problem_details_for_who_asks(
    world: World, method: str, path: str, body: bytes, status: int, reason: str
) -> None:
    accept = "application/problem+json" if status == 406 else PROBLEM["accept"]
    answer = await world.ask(method, path, {**PRIVATE, "accept": accept}, body)
    assert header(answer, "content-type") == "application/problem+json"
    problem = read(answer)
    assert (problem["status"], problem["reason"], problem["type"]) == (status, reason, "about:blank")
    assert problem["request_id"] == header(answer, "x-request-id")
    assert ("invalids" in problem) == (reason == "INVALID_EVENTS")


@pytest.mark.parametrize("accept", ["*/*", "application/*", "application/problem+json;q=0, */*"])
async def test_a_wildcard_is_no_wish_for_problem_details(world: World, accept: str) -> None:
    answer = await world.ask("GET", "/nowhere", {"accept": accept})
    assert header(answer, "content-type") == "application/json"


async def test_what_breaks_is_500_with_the_request_id_and_a_log_line(world: World, log: io.StringIO) -> None:
    world.store.refusal = RuntimeError("the secret reason")
    answer = await world.ask(
        "POST", "/v3/events", {**PUBLIC, "x-request-id": "mine", "traceparent": "00-ab-cd-01"}, ONE
    )
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert read(answer)["request_id"] == "mine"
    (line,) = lines(log)
    assert (line["level"], line["request_id"], line["traceparent"]) == ("error", "mine", "00-ab-cd-01")
    assert "the secret reason" in json.dumps(line["exception"])


@pytest.mark.parametrize("form", ["json", "human"])
async def test_a_traceback_in_the_log_shows_no_values(world: World, form: Literal["json", "human"]) -> None:
    class Breaks(MemoryStore):
        async def apply(self, changes: Sequence[Change]) -> None:
            secret = f"what {changes[0][0]!r} must not tell"
            raise RuntimeError(str(len(secret)))

    stream = io.StringIO()
    logs.configure(form, "debug", stream)
    world.store.__class__ = Breaks
    answer = await world.ask("POST", "/v3/events", PUBLIC, ONE)
    logging.getLogger("library").error("failed", exc_info=_error_with("test-public"))
    structlog.reset_defaults()
    shown = stream.getvalue()
    assert answer.status == 500
    assert "RuntimeError" in shown
    assert "ValueError" in shown
    for value in ("must not tell", "u-17", "test-public"):
        assert value not in shown


def _error_with(secret: str) -> ValueError | None:
    """An error whose traceback has a local variable with `secret`."""
    try:
        int(secret)
    except ValueError as error:
        return ValueError().with_traceback(error.__traceback__)
    return None


async def test_the_access_log_names_the_key_but_no_secret(log: io.StringIO) -> None:
    world = World(settings_with(log=LogSettings(level="debug")))
    await world.ask("POST", "/v3/events", {**PUBLIC, "x-request-id": "mine"}, ONE)
    (line,) = lines(log)
    assert (line["event"], line["status"], line["key"], line["path"]) == ("request", 202, "web", "/v3/events")
    assert line["request_id"] == "mine"
    assert "test-public" not in log.getvalue()


async def test_a_preflight_needs_no_key(world: World) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    for path in ("/v3/events", "/v3/graphql"):
        answer = await world.ask("OPTIONS", path, asked)
        assert (answer.status, answer.body) == (204, b"")
        assert header(answer, "access-control-allow-origin") == "*"
        assert "x-api-key" in str(header(answer, "access-control-allow-headers"))
        assert "POST" in str(header(answer, "access-control-allow-methods"))
        assert header(answer, "access-control-max-age") == "600"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://shop.example", "https://shop.example"), ("https://evil.example", None), (None, None)],
)
async def test_only_configured_origins_are_allowed(origin: str | None, allowed: str | None) -> None:
    world = World(settings_with(cors=CorsSettings(origins=("https://shop.example",))))
    named = {} if origin is None else {"origin": origin}
    preflight = await world.ask("OPTIONS", "/v3/events", {**named, "access-control-request-method": "POST"})
    sent = await world.ask("POST", "/v3/events", {**named, **PUBLIC}, ONE)
    refused = await world.ask("POST", "/v3/events", named, ONE)
    for answer in (preflight, sent, refused):
        assert header(answer, "access-control-allow-origin") == allowed
        assert header(answer, "vary") == "Origin"
    assert (
        header(sent, "access-control-expose-headers") == "ratelimit, ratelimit-policy, retry-after, x-request-id"
    ) == (allowed is not None)
    assert (header(preflight, "access-control-allow-methods") is None) == (allowed is None)


async def test_private_paths_have_no_cors(world: World) -> None:
    answer = await world.ask("GET", "/v3/segments", {**PRIVATE, "origin": "https://shop.example"})
    assert header(answer, "access-control-allow-origin") is None


async def test_options_elsewhere_says_what_is_allowed(world: World) -> None:
    answer = await world.ask("OPTIONS", "/v3/segments")
    assert (answer.status, header(answer, "allow")) == (204, "GET, HEAD, OPTIONS")


async def test_ready_follows_the_service(world: World) -> None:
    fresh = World().readiness
    assert (await world.ask("GET", "/readyz")).status == 200
    assert fresh.reason() is None
    world.store.broken = "the disk is full"
    answer = await world.ask("GET", "/readyz")
    assert (answer.status, read(answer)["message"]) == (503, "Nothing can be written: the disk is full")
    assert (await world.ask("GET", "/v3/segments", PRIVATE)).status == 200, "reading goes on"
    world.readiness.drain()
    assert read(await world.ask("GET", "/readyz"))["message"] == "The service is shutting down."
    assert (await world.ask("GET", "/healthz")).status == 200


async def test_before_it_is_ready_the_service_refuses_with_retry_after(world: World) -> None:
    world.readiness._ready = False  # as between listening and recovery
    answer = await world.ask("POST", "/v3/events", PUBLIC, ONE)
    assert (answer.status, header(answer, "retry-after")) == (503, "1")
    assert read(answer)["detail"]["message"] == "The service is starting."
    assert (await world.ask("GET", "/readyz")).status == 503
    assert not world.store.memberships


async def test_head_is_answered_like_get(world: World) -> None:
    assert (await world.ask("HEAD", "/healthz")).status == 200
