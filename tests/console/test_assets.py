"""The pages' files come with the headers that keep them harmless, and come from the package alone."""

import gzip

import pytest

from segmentd.http.console import PAGES
from segmentd.settings import ConsoleSettings
from tests.http.world import World, header, settings_with

WORLD = World()
EVERY_FILE = [*PAGES, "/console/console.js", "/console/console.css", "/console/mark.svg", "/console/graphiql.min.js"]


@pytest.mark.parametrize("path", EVERY_FILE)
async def test_every_file_has_a_policy_and_is_compressed_for_who_takes_it(path: str) -> None:
    plain = await WORLD.ask("GET", path)
    assert plain.status == 200
    policy = header(plain, "content-security-policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert ("unsafe-inline" in policy) == (path == "/graphiql")
    assert header(plain, "x-content-type-options") == "nosniff"
    assert header(plain, "referrer-policy") == "no-referrer"
    small = await WORLD.ask("GET", path, {"accept-encoding": "br, gzip"})
    assert header(small, "content-encoding") == "gzip"
    assert gzip.decompress(small.body) == plain.body


@pytest.mark.parametrize("path", EVERY_FILE)
async def test_a_browser_that_has_a_file_gets_304(path: str) -> None:
    tag = header(await WORLD.ask("GET", path), "etag")
    assert tag is not None
    assert (await WORLD.ask("GET", path, {"if-none-match": tag})).status == 304
    assert (await WORLD.ask("GET", path, {"if-none-match": '"other"'})).status == 200


@pytest.mark.parametrize(
    "name", ["", "nothing.js", "..%2F..%2Fservice.py", "..", "SHA256SUMS", "vendored", "__init__.py", "index.html%00"]
)
async def test_nothing_but_the_files_of_the_pages_is_served(name: str) -> None:
    assert (await WORLD.ask("GET", f"/console/{name}")).status == 404


@pytest.mark.parametrize("path", EVERY_FILE)
async def test_a_file_holds_no_address_outside(path: str) -> None:
    body = (await WORLD.ask("GET", path)).body.decode()
    for attribute in ('src="http', 'href="http', "src='http", "@import", "url(http", 'import("http', 'fetch("http'):
        assert attribute not in body


async def test_the_pages_can_be_switched_off() -> None:
    world = World(settings_with(console=ConsoleSettings(enabled=False)))
    for path in EVERY_FILE:
        assert (await world.ask("GET", path)).status == 404
    assert "/graphiql" not in (await world.ask("GET", "/openapi.json")).body.decode()
