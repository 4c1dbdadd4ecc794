"""The pages for people: the console, GraphiQL, the API reference, as static files out of the package.

Owns which file is served where, its headers, and the policy that keeps a page from loading or sending anything
elsewhere. Knows no key and no data: what the pages show, they fetch from the API with the key of whoever looks.

Invariants:
1. Only files that were in the package at the start are served; a path never reaches the file system.
2. Every page has a Content-Security-Policy that begins with nothing and names what it needs.
3. A file has a strong ETag; browsers ask each time, and get 304 while it is the same.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

import msgspec
import trio

from segmentd.http.errors import NoSuchPath
from segmentd.http.exchange import Answer, Header, Request
from segmentd.http.members import quality_of_gzip
from segmentd.http.preconditions import ANY, parse_tags
from segmentd.http.routing import Operation, Route

FOLDERS: Final = ("", "vendored")
"""Below segmentd/console; the vendored files are other people's, with their licences."""
PAGES: Final = {"/": "index.html", "/graphiql": "graphiql.html", "/reference": "reference.html"}
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
STRICT: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    # A string never becomes markup or script by accident.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
# GraphiQL's dialogs make style elements (to keep the page behind them still), its fonts are inside its style sheet, and
# it sets descriptions as markup.
GRAPHIQL: Final = {name: value for name, value in STRICT.items() if "trusted-types" not in name} | {
    "style-src": "'self' 'unsafe-inline'",
    "font-src": "data:",
}
_HEADERS: Final[tuple[Header, ...]] = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-cache"),
    ("vary", "accept-encoding"),
)


class Asset(msgspec.Struct):
    """One file. gzipped: made at the first request that wants it; empty until then."""

    body: bytes
    tag: str
    headers: tuple[Header, ...]
    gzipped: bytes = b""


class ConsoleApi:
    """Handlers of the pages and of `/console/{name}`."""

    def __init__(self) -> None:
        self._assets = dict(_assets())

    def routes(self) -> Iterator[Route]:
        """All routes of the pages. They are served while the service starts and ends, too: they can say so."""
        for path in PAGES:
            yield Route(path, {"GET": Operation(self.page, None)}, drains=False)
        yield Route("/console/{name}", {"GET": Operation(self.asset, None)}, drains=False)

    async def page(self, request: Request) -> Answer:
        """200 with the page, 304."""
        path = "/" + request.path.strip("/")
        return await self._answer(self._assets[PAGES[path]], request)

    async def asset(self, request: Request) -> Answer:
        """200 with the file, 304, 404."""
        asset = self._assets.get(request.params["name"])
        if asset is None:
            raise NoSuchPath("The console has no such file.")
        return await self._answer(asset, request)

    async def _answer(self, asset: Asset, request: Request) -> Answer:
        known = parse_tags("If-None-Match", request.headers.get("if-none-match"), weak_too=True)
        if known is not None and (ANY in known or asset.tag in known):
            return Answer(304, headers=asset.headers)
        if quality_of_gzip(request.headers.get("accept-encoding", "")) <= 0:
            return Answer(200, asset.body, asset.headers)
        if not asset.gzipped:
            asset.gzipped = await trio.to_thread.run_sync(gzip.compress, asset.body)
        return Answer(200, asset.gzipped, (*asset.headers, ("content-encoding", "gzip")))


def _assets() -> Iterator[tuple[str, Asset]]:
    root = files("segmentd").joinpath("console")
    for folder in FOLDERS:
        for file in root.joinpath(folder).iterdir() if folder else root.iterdir():
            media_type = TYPES.get(file.name.rpartition(".")[2])
            if file.is_file() and media_type is not None:
                yield file.name, _asset(file.name, media_type, file.read_bytes())


def _asset(name: str, media_type: str, body: bytes) -> Asset:
    tag = hashlib.sha256(body).hexdigest()[:32]
    policy = _policy(GRAPHIQL if name == PAGES["/graphiql"] else STRICT)
    # On every file, so that one opened by itself can do no more than as a part of its page.
    headers = (("content-type", media_type), ("etag", f'"{tag}"'), ("content-security-policy", policy), *_HEADERS)
    return Asset(body, tag, headers)


def _policy(directives: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in directives.items())
