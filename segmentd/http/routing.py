"""Which operation serves a method and a path.

Owns the table's types and the search in it. Never runs a handler.

Invariants:
1. The raw path is cut at "/" first and percent-decoded after, so an encoded slash stays inside its part.
2. One trailing slash is allowed and means nothing.
3. What a path leads to does not depend on the method; a known path with another method is 405, never 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from segmentd.http.errors import Shape, plain_shape
from segmentd.http.exchange import Answer, Request
from segmentd.keyfile import Right

Handler = Callable[[Request], Awaitable[Answer]]

UNMATCHED: Final = "unmatched"
"""The template that metrics show for paths which nothing serves."""
_NO_PARAMS: Final[dict[str, str]] = {}


class Done(Protocol):
    """Something that is under way."""

    def then(self, call: Callable[[Exception | None], None], /) -> None:
        """Have `call` be called with the error, if any, once it is done."""


class Later(msgspec.Struct, frozen=True):
    """An answer that comes when something is done. answer: is told the error, if any; raises the refusal instead."""

    done: Done
    answer: Callable[[Exception | None], Answer]


class AtOnce(msgspec.Struct, frozen=True):
    """The part of an operation that needs no task.

    may_wait: whether the request could need one, told from what it looks like before its key is known; such a
    request is for `Operation.handle`. answer: what `handle` answers to all others, now or later.
    """

    may_wait: Callable[[Request], bool]
    answer: Callable[[Request], Answer | Later]


class Operation(msgspec.Struct, frozen=True):
    """What one method of a route does. needs: the right of the key; None: no key is asked for.

    shows: whether the answer tells what the store holds, which must not be older than what followers show.
    """

    handle: Handler
    needs: Right | None
    at_once: AtOnce | None = None
    shows: bool = True


class Route(msgspec.Struct, frozen=True):
    """A path template and its operations.

    template: parts are literal, `{name}`, or `{name}:verb`; a name takes one part, never a slash.
    public: browsers on other sites may call it (CORS). drains: refused while the service starts or ends.
    streams: the handler reads `Request.stream` as it comes; the bound of the body holds all the same.
    """

    template: str
    operations: Mapping[str, Operation]
    shape: Shape = plain_shape
    body_bytes_max: int = 0
    limit_name: str = ""
    public: bool = False
    drains: bool = True
    streams: bool = False

    def operation(self, method: str) -> Operation | None:
        """The operation for `method`; HEAD is GET without the body."""
        return self.operations.get("GET" if method == "HEAD" else method)

    @property
    def allow(self) -> str:
        """The value of the header `Allow`."""
        methods = {*self.operations, "OPTIONS"} | ({"HEAD"} if "GET" in self.operations else set())
        return ", ".join(sorted(methods))


class Match(msgspec.Struct, frozen=True):
    """Where a path leads; `route` is None if it leads nowhere."""

    route: Route | None
    params: dict[str, str]


class RouteTable:
    """All routes; the search is one dictionary look-up for paths without parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {route.template: Match(route, _NO_PARAMS) for route in self.routes if "{" not in route.template}
        patterned = [route for route in self.routes if "{" in route.template]
        # `{id}:verb` before `{id}`, which would take the verb for a part of the id.
        patterned.sort(key=lambda route: "}:" not in route.template)
        self._patterns = [(_parts(route.template), route) for route in patterned]

    def find(self, path: str) -> Match:
        """path: as on the wire, without the query."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        parts = [unquote(part, errors="replace") for part in _parts(path)]
        if len(parts) > 1 and any(parts) and not parts[-1]:
            parts.pop()
        exact = None if any("/" in part for part in parts) else self._exact.get("/" + "/".join(parts))
        if exact is not None:
            return exact
        for template, route in self._patterns:
            params = _params(template, parts)
            if params is not None:
                return Match(route, params)
        return Match(None, _NO_PARAMS)


def _parts(path: str) -> list[str]:
    return path.removeprefix("/").split("/")


def _params(template: list[str], parts: list[str]) -> dict[str, str] | None:
    """The parameters of `parts`, or None if they do not fit `template`."""
    if len(template) != len(parts):
        return None
    params: dict[str, str] = {}
    for pattern, part in zip(template, parts, strict=True):
        if not pattern.startswith("{"):
            if pattern != part:
                return None
            continue
        name, _, verb = pattern[1:].partition("}")
        value = part.removesuffix(verb)
        if not value or (verb and value == part):
            return None
        params[name] = value
    return params
