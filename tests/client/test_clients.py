"""Both clients say the same to a server: over httpx's own transport for tests, Trio's clock for the time."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from segmentd.client import Client, GaveUp, InvalidEvents, Options, Post, Refused, Report, TrioClient, Wait

URL = "http://segmentd.example/behind/a/proxy"
EVENTS = [{"type": "passthrough", "data": {"ts": number}} for number in range(5)]
Handler = Callable[[httpx.Request], httpx.Response]
# One call that is made with either client.
Call = Callable[[Any], Any]


def in_turn(*answers: httpx.Response | type[httpx.TransportError]) -> tuple[Handler, list[httpx.Request]]:
    """A handler that answers so, then 202 for ever, and the requests that it saw."""
    left, seen = list(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0) if left else httpx.Response(202)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("as the test wishes")

    return handle, seen


def plainly(handler: Handler, call: Call, options: Options) -> Any:
    with Client(URL, "the-key", options, transport=httpx.MockTransport(handler)) as client:
        return call(client)


def with_trio(handler: Handler, call: Callable[[Any], Awaitable[Any]], options: Options) -> Any:
    async def run() -> Any:
        async with TrioClient(URL, "the-key", options, transport=httpx.MockTransport(handler)) as client:
            return await call(client)

    return trio.run(run, clock=MockClock(autojump_threshold=0))


BOTH = pytest.mark.parametrize("run", [plainly, with_trio])
QUICK = Options(pause_seconds_min=0.001, pause_seconds_max=0.001, give_up_seconds=0.05)


@BOTH
def test_events_go_out_as_lines_with_the_key_below_the_path(run: Callable[..., Any]) -> None:
    handler, seen = in_turn()
    report = run(handler, lambda client: client.send(iter(EVENTS)), Options(events_per_request_max=3))
    assert report == Report(next_number=5, acknowledged=5, requests=2)
    assert {str(request.url) for request in seen} == {f"{URL}/v3/events"}
    assert {request.headers["x-api-key"] for request in seen} == {"the-key"}
    assert {request.headers["content-type"] for request in seen} == {"application/x-ndjson"}
    assert [json.loads(line) for request in seen for line in request.content.split(b"\n")] == EVENTS


@BOTH
def test_a_lost_connection_and_a_503_are_survived(run: Callable[..., Any]) -> None:
    handler, seen = in_turn(httpx.ConnectError, httpx.ReadTimeout, httpx.Response(503), httpx.RemoteProtocolError)
    report = run(handler, lambda client: client.send(EVENTS), QUICK)
    assert (report.acknowledged, report.requests, report.retries) == (5, 5, 4)
    assert len({request.content for request in seen}) == 1


@BOTH
def test_what_a_report_of_the_callers_own_says_is_true_after_an_error(run: Callable[..., Any]) -> None:
    handler, _ = in_turn(httpx.Response(202), httpx.Response(403, json={"message": "Forbidden"}))
    report = Report(0)
    with pytest.raises(Refused, match="Forbidden"):
        run(handler, lambda client: client.send(EVENTS, report=report), Options(events_per_request_max=2))
    assert (report.acknowledged, report.next_number, report.unknown) == (2, 2, None)


@BOTH
def test_an_invalid_event_is_named_by_its_position(run: Callable[..., Any]) -> None:
    invalids = [{"event": 1, "field": "data.ts", "reason": "OUT_OF_RANGE", "message": "Too late."}]
    handler, _ = in_turn(httpx.Response(202), httpx.Response(400, json={"detail": {"invalids": invalids}}))
    with pytest.raises(InvalidEvents) as raised:
        run(handler, lambda client: client.send(EVENTS), Options(events_per_request_max=2))
    assert [(problem.number, problem.field) for problem in raised.value.problems] == [(3, "data.ts")]


@BOTH
def test_the_segments_of_a_customer_are_asked_for_with_variables(run: Callable[..., Any]) -> None:
    edges = [{"node": {"name": "vip"}}, {"node": {"name": "beta"}}]
    handler, seen = in_turn(httpx.Response(200, json={"data": {"customer": {"audiences": {"edges": edges}}}}))
    found = run(handler, lambda client: client.segments_of(fs_user_id='"u', subset=["vip", "beta"]), QUICK)
    assert found == ["vip", "beta"]
    asked = json.loads(seen[0].content)
    assert asked["variables"] == {"value": '"u', "subset": ["vip", "beta"]}
    assert "customer(fs_user_id: $value)" in asked["query"]


@BOTH
@pytest.mark.parametrize(
    ("body", "reason"),
    [({"errors": [{"message": "No such identifier."}], "data": None}, "No such identifier"), ([], "gives no reason")],
)
def test_a_query_that_fails_says_why(run: Callable[..., Any], body: Any, reason: str) -> None:
    handler, _ = in_turn(httpx.Response(200, json=body))
    with pytest.raises(Refused, match=reason):
        run(handler, lambda client: client.segments_of(fs_user_id="u"), QUICK)


@BOTH
@pytest.mark.parametrize("identifier", [{}, {"a": "1", "b": "2"}, {"a){x}": "1"}])
def test_a_query_needs_one_identifier_with_a_proper_name(run: Callable[..., Any], identifier: dict[str, str]) -> None:
    handler, seen = in_turn()
    with pytest.raises(ValueError, match="identifier"):
        run(handler, lambda client: client.segments_of(**identifier), QUICK)
    assert seen == []


@pytest.mark.parametrize(
    ("url", "key"), [("", "k"), ("127.0.0.1:8080", "k"), ("ftp://h", "k"), ("http://[", "k"), (URL, ""), (URL, "k\n")]
)
def test_an_address_or_a_key_that_cannot_be_one_is_refused_at_once(url: str, key: str) -> None:
    for kind in (Client, TrioClient):
        with pytest.raises(ValueError, match=r"expected|key|Invalid"):
            kind(url, key)


def test_by_trios_clock_a_server_that_is_away_is_given_up_after_the_time_that_was_said() -> None:
    steps: list[Post | Wait] = []

    def always_down(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    async def run() -> float:
        start = trio.current_time()
        transport = httpx.MockTransport(always_down)
        async with TrioClient(
            URL, "k", Options(give_up_seconds=300), on_step=steps.append, transport=transport
        ) as client:
            with pytest.raises(GaveUp, match="Connection refused; given up after"):
                await client.send(EVENTS)
        return trio.current_time() - start

    assert trio.run(run, clock=MockClock(autojump_threshold=0)) == pytest.approx(300)
    assert sum(step.seconds for step in steps if isinstance(step, Wait)) == pytest.approx(300)


def test_by_trios_clock_retry_after_is_honoured() -> None:
    handler, seen = in_turn(httpx.Response(429, headers={"retry-after": "17"}))

    async def run() -> float:
        async with TrioClient(URL, "k", transport=httpx.MockTransport(handler)) as client:
            await client.send(EVENTS)
        return trio.current_time()

    async def timed() -> float:
        start = trio.current_time()
        return await run() - start

    assert trio.run(timed, clock=MockClock(autojump_threshold=0)) == pytest.approx(17)
    assert len(seen) == 2


def test_a_cancelled_task_leaves_a_true_report() -> None:
    report = Report(0)

    async def handle(request: httpx.Request) -> httpx.Response:
        if report.next_number == 2:
            await trio.sleep_forever()
        return httpx.Response(202)

    async def run() -> None:
        options = Options(events_per_request_max=2)
        with trio.move_on_after(1):
            async with TrioClient(URL, "k", options, transport=httpx.MockTransport(handle)) as client:
                await client.send(EVENTS, report=report)

    trio.run(run, clock=MockClock(autojump_threshold=0))
    assert (report.acknowledged, report.next_number, report.unknown) == (2, 2, (2, 3))


def test_events_are_read_only_as_they_are_sent() -> None:
    handler, seen = in_turn()
    read: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        for number, event in enumerate(EVENTS * 10):
            read.append(number)
            assert len(read) <= 2 * (len(seen) + 1), "no request is made of events that were read long before"
            yield event

    with Client(URL, "k", Options(events_per_request_max=2), transport=httpx.MockTransport(handler)) as client:
        assert client.send(endless()).acknowledged == 50
