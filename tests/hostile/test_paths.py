"""Paths that try to be other paths: on both roads they lead nowhere new, change nothing and break nothing."""

import pytest

from segmentd.settings import ServerSettings
from tests.http.conftest import Served
from tests.http.test_wire import connected, one_answer
from tests.http.world import World, settings_with

PUBLIC_ONLY = b"x-api-key: test-public\r\n"
TRICKS = [
    b"/v3/%2e%2e/v3/segments",
    b"/v3/../v3/segments",
    b"/v3/events/../segments",
    b"/v3/events/%2e%2e/segments",
    b"//v3/segments",
    b"/v3//segments",
    b"/v3/segments//",
    b"/v3%2fsegments",
    b"/v3/segments%2f",
    b"/v3/segments%00",
    b"/v3/segments;x=1",
    b"/V3/SEGMENTS",
    b"/v3/events%2f..%2fsegments",
    b"http://evil.example/v3/segments",
    b"http://evil.example//v3/segments",
    b"/console/..%2f..%2fkeyfile.py",
    b"/console/%2e%2e%2fservice.py",
    b"/console/..%5c..%5cservice.py",
    b"/console//etc/passwd",
    b"/console/%00",
    b"/" + b"a" * 7_000,
    b"/" + b"%41" * 5_000,
    b"/" + b"/" * 7_000,
    b"/v3/segments/" + b"%ff" * 100,
    b"/v3/graphql?query=" + b"%7B" * 5_000,
    b"/?" + b"a=1&" * 5_000,
]


@pytest.fixture(params=[True, False], ids=["lane", "main road"])
def world(request: pytest.FixtureRequest) -> World:
    return World(settings_with(server=ServerSettings(lane=request.param)))


@pytest.mark.parametrize("path", TRICKS, ids=lambda path: path[:30].decode())
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_public_key_gets_nothing_by_a_trick_with_the_path(served: Served, method: bytes, path: bytes) -> None:
    before = served.world.state()
    async with connected(served.port) as stream:
        await stream.send_all(b"%b %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: 0\r\n\r\n" % (method, path, PUBLIC_ONLY))
        status, _, body = await one_answer(stream)
    # The console's page, and a GraphQL answer with an error in it, are nothing new.
    page = method == b"GET" and path.startswith((b"/?", b"/v3/graphql?"))
    assert status == 200 if page else status in {400, 403, 404, 405, 415}, (status, body[:200])
    assert b"segment_ids" not in body
    assert b"def " not in body
    assert b"root:" not in body
    assert served.world.state() == before
