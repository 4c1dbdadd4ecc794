"""The main road is a Quart application: its rules lead where our routes say, its bodies are bounded, both ways."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import MethodNotAllowed, NotFound

from segmentd.http import views
from segmentd.http.app import App
from segmentd.http.connection import BUFFERED_BYTES_MAX, UploadRequest
from segmentd.http.errors import BodyBrokenOff, plain_shape
from segmentd.http.exchange import Answer, Request
from segmentd.http.routing import Operation, Route, RouteTable
from segmentd.http.rules import raw_path_of, routing_path
from segmentd.settings import ServerSettings
from tests.http.conftest import Served, start
from tests.http.test_wire import connected, everything, one_answer
from tests.http.world import PRIVATE, PUBLIC, World, definition, event, settings_with

ONE = json.dumps(event()).encode()
WORLD = World()
# fmt: off
PIECES = [
    "v3", "events", "graphql", "segments", "healthz", "gold", "gold:validate", "gold:other", ":validate", "%3Avalidate",
    "%65vents", "a%2Fb", "a%252Fb", "%", "%zz", "%ff", "%00", "%0A", "é%C3%A9", "..", "{x}", "<x>", "", "a b",
]
# fmt: on


def led_by_quart(app: App, method: str, raw_path: str) -> tuple[str | None, dict[str, Any]]:
    """(endpoint, parameters) that Quart's map finds; (None, {}) where it finds none."""
    adapter = app.url_map.bind("x", path_info=routing_path(raw_path), default_method=method)
    try:
        endpoint, params = adapter.match()
    except MethodNotAllowed:
        return "405", {}
    except NotFound:
        return None, {}
    return endpoint, dict(params)


def led_by_table(app: App, method: str, raw_path: str) -> tuple[str | None, dict[str, Any]]:
    match = app.edge.find(raw_path)
    if match.route is None:
        return None, {}
    if match.route.operation(method) is None and method != "OPTIONS":
        return "405", {}
    return match.route.template, match.params


@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"]),
    parts=st.lists(st.sampled_from(PIECES) | st.text("aZ/:%2F5_\n.", max_size=6), max_size=5),
)
def test_quart_and_our_table_lead_every_path_to_the_same_route(method: str, parts: list[str]) -> None:
    raw_path = "/" + "/".join(parts)
    assert led_by_quart(WORLD.app, method, raw_path) == led_by_table(WORLD.app, method, raw_path)


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v3/events", ("/v3/events", {})),
        ("POST", "/v3/events/", ("/v3/events", {})),
        ("POST", "//v3/events", (None, {})),
        ("POST", "/v3//events", (None, {})),
        ("GET", "/v3/segments/a%2Fb", ("/v3/segments/{segment_id}", {"segment_id": "a/b"})),
        ("GET", "/v3/segments/a%252Fb", ("/v3/segments/{segment_id}", {"segment_id": "a%2Fb"})),
        ("POST", "/v3/segments/a:validate", ("/v3/segments/{segment_id}:validate", {"segment_id": "a"})),
        ("GET", "/v3/segments/a:validate", ("405", {})),
        ("GET", "/v3/segments/:validate", ("/v3/segments/{segment_id}", {"segment_id": ":validate"})),
    ],
)
def test_paths_lead_where_the_contract_says(method: str, path: str, found: tuple[str | None, dict[str, str]]) -> None:
    assert led_by_quart(WORLD.app, method, path) == found
    assert led_by_table(WORLD.app, method, path) == found


def test_every_route_is_a_rule_of_quart_with_its_methods() -> None:
    rules = {rule.endpoint: rule.methods for rule in WORLD.app.url_map.iter_rules()}
    assert isinstance(WORLD.app, Quart)
    assert set(rules) == {route.template for route in WORLD.app.edge.routes}
    for route in WORLD.app.edge.routes:
        assert ", ".join(sorted(rules[route.template] or ())) == route.allow


def test_a_whole_address_is_a_path_without_its_host() -> None:
    assert raw_path_of({"raw_path": b"http://x.example/v3/events"}) == "/v3/events"
    assert raw_path_of({"raw_path": b"http://x.example"}) == "/"


@pytest.mark.parametrize("host", [b"", b"host: \r\n", b"host: a b\r\n", b"host: \xff\r\n", b"host: [::1\r\n"])
async def test_the_host_that_a_client_names_changes_nothing(served: Served, host: bytes) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\n" + host + b"connection: close\r\n\r\n")
        status = (await everything(stream)).split(b" ")[1]
    assert status == (b"200" if host.startswith(b"host") else b"400")


@pytest.mark.parametrize("target", [b"x?x=1", b"*", b"/%", b"/a%0d%0ab", b"http:///x", b"//", b"/" + b"a" * 9_000])
async def test_odd_targets_are_404_in_our_shape(served: Served, target: bytes) -> None:
    async with connected(served.port) as stream:
        await stream.send_all(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, body = await one_answer(stream)
    assert status == 404
    assert json.loads(body)["request_id"] == headers["x-request-id"]


async def test_a_websocket_is_refused_and_breaks_nothing(served: Served) -> None:
    asked = (
        b"GET /v3/events HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with connected(served.port) as stream:
        await stream.send_all(asked)
        status, _, _ = await one_answer(stream)
    assert 400 <= status < 500


async def test_what_breaks_around_the_edge_is_still_answered_in_our_shape(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_once(answer: Answer, asked: UploadRequest) -> TrioResponse:
        monkeypatch.undo()
        raise RuntimeError(f"the secret reason of {answer.status} {asked.path}")

    monkeypatch.setattr(views, "response_of", breaks_once)
    answer = await served.client.get("/v3/segments", headers=PRIVATE)
    assert answer.status_code == 500
    assert answer.json()["reason"] == "INTERNAL_ERROR"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


async def test_segments_work_through_quart_from_end_to_end(served: Served) -> None:
    put = await served.client.put("/v3/segments/Gold", headers=PRIVATE, json=definition())
    assert (put.status_code, put.json(), put.headers["etag"]) == (201, {"revision": 1}, '"1"')
    got = await served.client.get("/v3/segments/gold", headers={**PRIVATE, "if-none-match": '"1"'})
    assert (got.status_code, got.content) == (304, b"")
    assert "content-type" not in got.headers
    gone = await served.client.delete("/v3/segments/gold", headers=PRIVATE)
    assert gone.json() == {"segment_ids": []}
    preflight = await served.client.options("/v3/events", headers={"origin": "https://x.example"})
    assert (preflight.status_code, preflight.headers.get("content-length")) == (204, None)


class Streaming:
    """A world with one more route, which reads its body as it comes and answers in parts."""

    def __init__(self, bytes_max: int = 1 << 30, **server: Any) -> None:
        self.world = World(settings_with(server=ServerSettings(**server)))
        self.parts: list[int] = []
        self.refused: Exception | None = None
        self.gate = trio.Event()
        self.gate.set()
        self.ended = trio.Event()
        route = Route(
            "/stream", {"POST": Operation(self.handle, "public")}, plain_shape, bytes_max, "stream_max", streams=True
        )
        edge = self.world.app.edge
        edge._routes = RouteTable([*edge.routes, route])
        self.world.app = App(edge, self.world.app.interludes, self.world.settings.server.request_read_seconds_max)

    async def handle(self, request: Request) -> Answer:
        assert request.stream is not None
        await self.gate.wait()
        try:
            async for part in request.stream:
                self.parts.append(len(part))
        except Exception as error:
            self.refused = error
            raise
        finally:
            self.ended.set()
        return Answer(200, headers=(("content-type", "text/plain"),), stream=self._numbers())

    async def _numbers(self) -> AsyncGenerator[bytes, None]:
        for number in range(1_000):
            yield b"%d\n" % number


async def test_a_streamed_body_arrives_in_parts_and_a_streamed_answer_leaves_in_parts(nursery: trio.Nursery) -> None:
    streaming = Streaming()
    served = await start(streaming.world, nursery)
    async with served.client:
        answer = await served.client.post("/stream", headers=PUBLIC, content=b"x" * 3_000_000)
        assert answer.text == "".join(f"{number}\n" for number in range(1_000))
        assert answer.headers["transfer-encoding"] == "chunked"
        assert (await served.client.get("/healthz")).status_code == 200
    assert sum(streaming.parts) == 3_000_000
    assert len(streaming.parts) > 1
    served.stop.set()


async def test_a_reader_that_waits_makes_the_client_wait(nursery: trio.Nursery) -> None:
    streaming = Streaming()
    served = await start(streaming.world, nursery)
    streaming.gate = trio.Event()
    async with connected(served.port) as stream:
        await stream.send_all(
            b"POST /stream HTTP/1.1\r\nhost: x\r\nx-api-key: test-public\r\ncontent-length: 100000000\r\n\r\n"
        )
        sent = 0
        with trio.move_on_after(0.5):
            while sent < 100_000_000:
                await stream.send_all(b"x" * 100_000)
                sent += 100_000
        assert sent < 50_000_000, "the sockets' buffers and ours are bounded"
        streaming.gate.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert max(streaming.parts) <= BUFFERED_BYTES_MAX + 65_536
    with trio.fail_after(20):
        await streaming.ended.wait()
    assert isinstance(streaming.refused, BodyBrokenOff)
    served.stop.set()


async def test_a_streamed_body_has_its_bound_and_its_time(nursery: trio.Nursery) -> None:
    streaming = Streaming(bytes_max=1_000, request_read_seconds_max=0.2)
    served = await start(streaming.world, nursery)
    head = b"POST /stream HTTP/1.1\r\nhost: x\r\nx-api-key: test-public\r\ntransfer-encoding: chunked\r\n\r\n"
    for body, status in ((b"3e9\r\n" + b"x" * 1001 + b"\r\n", 413), (b"1\r\nx\r\n", 408)):
        async with connected(served.port) as stream:
            await stream.send_all(head + body)
            assert (await one_answer(stream))[0] == status
    served.stop.set()


async def test_an_upload_that_is_refused_at_once_is_drained_so_that_the_answer_is_read(nursery: trio.Nursery) -> None:
    streaming = Streaming()
    served = await start(streaming.world, nursery)
    async with served.client:
        answer = await served.client.post("/stream", headers={"x-api-key": "wrong"}, content=b"x" * 3_000_000)
    assert (answer.status_code, answer.headers["connection"]) == (403, "close")
    assert not streaming.parts
    served.stop.set()
