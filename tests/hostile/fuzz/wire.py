"""What stands at the beginning of a connection: the lane's heads beside another parser's, and paths on both roads."""

from functools import cache, partial
from typing import cast

import h11
import trio
from werkzeug.exceptions import HTTPException

from segmentd.http.edge import Edge
from segmentd.http.lanehead import HandedOverError, Head, Heads
from segmentd.http.routing import Match, Route
from segmentd.http.rules import routing_path
from tests.http.world import World

BODY_BYTES_MAX = 65_536
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")


class _Routes:
    """Just what the lane's heads ask of the edge."""

    def find(self, path: str) -> Match:
        return Match(Route(path, {}, body_bytes_max=BODY_BYTES_MAX), {})


@cache
def _heads() -> Heads:
    return Heads(cast(Edge, _Routes()), ("/v3/graphql", "/v3/events"))


def head(data: bytes) -> None:
    """A head that the lane takes means the same to h11: method, path, fields, framing, and whether it is the last."""
    cut = data.find(b"\r\n\r\n")
    if cut < 0:
        return
    raw = data[: cut + 4]
    try:
        taken = _heads().read(raw)
    except HandedOverError:
        return
    if taken.length <= BODY_BYTES_MAX:
        _same_to_h11(raw, taken)
    else:
        raise AssertionError(taken)


def _same_to_h11(raw: bytes, taken: Head) -> None:
    body, behind = b"x" * taken.length, b"POST /v3/events HTTP/1.1\r\n"
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw + body + behind)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    assert (request.method, request.target, request.http_version) == (b"POST", taken.path.encode(), b"1.1")
    fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
    assert fields == taken.headers
    received = b""
    while isinstance(event := connection.next_event(), h11.Data):
        received += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert received == body
    assert connection.trailing_data[0] == behind
    assert (connection.their_state is h11.MUST_CLOSE) == taken.closes


@cache
def _world() -> World:
    async def made() -> World:
        return World()

    return trio.run(made)


def path(data: bytes) -> None:
    """A raw path leads to the same route with the same parameters on both roads."""
    raw = "/" + data.decode("latin-1").partition("?")[0]
    if not raw.isprintable() or " " in raw or "#" in raw:
        return
    app = _world().app
    found = app.edge.find(raw)
    bound = app.url_map.bind("segmentd", path_info=routing_path(raw))
    allowed = set(bound.allowed_methods())
    served = set() if found.route is None else {*found.route.operations, "OPTIONS"}
    assert allowed - {"HEAD"} == served - {"HEAD"}, (raw, allowed, served)
    for method in METHODS:
        if method not in served or found.route is None:
            continue
        try:
            template, params = bound.match(method=method)
        except HTTPException as error:
            raise AssertionError((raw, method, error)) from error
        assert (template, params) == (found.route.template, found.params), raw


# What a request of the target `exchange` asks for, by its first byte.
ASKED = (
    ("POST", "/v3/events", "application/json"),
    ("POST", "/v3/events", "application/x-ndjson"),
    ("POST", "/v3/graphql", "application/json"),
    ("GET", "/v3/graphql", ""),
    ("PUT", "/v3/segments/a", "application/json"),
    ("POST", "/v3/segments/a:validate", "application/json"),
)


def exchange(data: bytes) -> None:
    """Whatever the body or the query is, the answer is no failure, and a refusal changes nothing."""
    if not data:
        return
    method, target, media_type = ASKED[data[0] % len(ASKED)]
    headers = {"x-api-key": "test-private", "content-type": media_type}
    query = f"?{data[1:].decode('latin-1')}" if method == "GET" else ""
    world = _world()
    before = world.state()
    answer = trio.run(partial(world.ask, method, target + query, headers, data[1:]))
    assert answer.status in {200, 201, 202, 400, 403, 405, 406, 413, 415, 503}, answer
    if answer.status >= 400:
        assert world.state() == before
