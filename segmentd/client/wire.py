"""What both clients put on the wire and read from it: addresses, headers, the query, events as JSON.

Owns no connection. The one place that knows httpx's exceptions.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from segmentd.client.answers import Answer, Lost, message_of, retry_after_seconds
from segmentd.client.exchange import Post
from segmentd.client.report import Line, Options, Refused

_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")
_ENCODE: Final = msgspec.json.Encoder()

Event = Mapping[str, Any]
"""An event as `POST /v3/events` takes it."""


def connection_options(url: str, key: str, options: Options) -> dict[str, Any]:
    """The arguments of httpx's clients. Raises ValueError: no address of a server, or no key."""
    try:
        parts = httpx.URL(url)
        urlsplit(url)  # which, unlike httpx, looks at the brackets of an IPv6 address
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{url}: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise ValueError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError("a key consists of printable ASCII characters")
    headers = {"x-api-key": key, "user-agent": "segmentd-client"}
    # One connection: the order of the requests is that of the events.
    limits = httpx.Limits(max_connections=1)
    return {"base_url": parts, "headers": headers, "timeout": options.answer_seconds_max, "limits": limits}


def answered(response: httpx.Response) -> Answer:
    """What the core is told of an answer."""
    wait = retry_after_seconds(response.headers.get("retry-after"), time.time())
    return Answer(response.status_code, response.content, wait)


def lost(error: httpx.RequestError) -> Lost:
    """What the core is told where no answer came."""
    reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
    reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Lost(reason, reached)


def lines_of(events: Iterable[Event]) -> Iterator[Line]:
    """Events as lines, numbered from 0."""
    for number, event in enumerate(events):
        yield Line(number, _ENCODE.encode(event))


def segments_query(identifier: Mapping[str, str], subset: Sequence[str] | None) -> Post:
    """The query for the segments of one customer. Raises ValueError: not exactly one identifier, or no name of one."""
    if len(identifier) != 1:
        raise ValueError(f"exactly one identifier is expected, not {len(identifier)}")
    [(name, value)] = identifier.items()
    # Names cannot be variables of a query, so one that could be more than a name is not let through.
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an identifier")
    query = (
        f"query($value: String, $subset: [String]) {{ customer({name}: $value) "
        "{ audiences(subset: $subset) { edges { node { name } } } } }"
    )
    body = _ENCODE.encode({"query": query, "variables": {"value": value, "subset": subset}})
    return Post("/v3/graphql", body, {"content-type": "application/json"})


def segments_in(answer: Answer) -> list[str]:
    """The names of the segments. Raises Refused, also for an answer of errors."""
    try:
        found = msgspec.json.decode(answer.body)
        return [edge["node"]["name"] for edge in found["data"]["customer"]["audiences"]["edges"]]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise Refused(answer.status, _first_error(answer)) from None


def _first_error(answer: Answer) -> str:
    try:
        return str(msgspec.json.decode(answer.body)["errors"][0]["message"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return message_of(answer)
