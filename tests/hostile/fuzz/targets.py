"""The targets: each takes bytes and raises where a promise is broken.

`python -m tests.hostile.fuzz TARGET` lets atheris look for such bytes; the suite runs the corpus and a bounded search.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any
from zlib import crc32

import msgspec

from segmentd.domain.pagecursors import AUDIENCE, MEMBER, key_of
from segmentd.domain.pagecursors import cursor_of as page_cursor_of
from segmentd.domain.refusals import MalformedBody, TooLarge, UnsupportedMediaType
from segmentd.graphql.cursors import cursor_of, name_of
from segmentd.graphql.engine import GraphQLEngine, GraphQLRequest
from segmentd.graphql.errors import ReadError
from segmentd.http import negotiation, preconditions
from segmentd.http.errors import InvalidRequest
from segmentd.http.exchange import Request, request_id_of
from segmentd.http.inflation import inflate
from segmentd.settings import GraphQLSettings
from segmentd.storage.records import DamagedRecordError, decode_record
from tests.domain.test_event_roads import MALFORMED, assert_agreed, whole_way
from tests.graphql.fakes import IDENTIFIERS, shop
from tests.graphql.test_plans import pairs
from tests.hostile.fuzz.lists import whole_list
from tests.hostile.fuzz.wire import exchange, head, path

INFLATED_BYTES_MAX = 4_096


def events(data: bytes) -> None:
    """The fast road and the examining road agree about an upload; nothing but a refusal leaves them."""
    ndjson, body = bool(data[:1] and data[0] & 1), data[1:]
    try:
        body.decode()
    except UnicodeDecodeError:
        assert whole_way(body, ndjson) == MALFORMED
        return
    assert_agreed(body, ndjson)


@cache
def _engines() -> tuple[GraphQLEngine, GraphQLEngine]:
    world = shop()

    def engine(*, plans: bool, kept: int) -> GraphQLEngine:
        settings = GraphQLSettings(plans=plans, document_cache_entries_max=kept)
        return GraphQLEngine(world.store, world.catalog, IDENTIFIERS, settings)

    return engine(plans=True, kept=1_024), engine(plans=False, kept=1)


def graphql(data: bytes) -> None:
    """Plan and executor agree about a query, its variables (JSON behind a NUL) included; there is always an answer."""
    text, _, raw = data.partition(b"\0")
    try:
        variables: Any = msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if variables is not None and not isinstance(variables, dict):
        return
    request = GraphQLRequest(
        query=text.decode("utf-8", "surrogatepass" if _is_wtf8(text) else "replace"), variables=variables
    )
    planning, plain = _engines()
    planned = planning.execute(request, right="public")
    executed = plain.execute(request, right="public")
    assert planned.kind == executed.kind
    assert pairs(planned) == pairs(executed)
    assert b"INTERNAL" not in planned.encoded.replace(text, b""), planned


def _is_wtf8(text: bytes) -> bool:
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def cursors(data: bytes) -> None:
    """Only a cursor that was made here is read, and it has one text."""
    text = data.decode("latin-1")
    for kind in (MEMBER, AUDIENCE):
        with suppress(ValueError):
            assert page_cursor_of(kind, key_of(kind, text)) == text
    with suppress(ReadError):
        assert cursor_of(name_of(text, "after")) == text


def records(data: bytes) -> None:
    """A journal record is whole, or damaged and named so, whatever its bytes; a right checksum changes nothing."""
    for blob in (data, crc32(data).to_bytes(4) + data):
        with suppress(DamagedRecordError):
            decode_record(blob)


def inflation(data: bytes) -> None:
    """A compressed body becomes no larger than its bound, or is refused."""
    for encoding in ("gzip", "zstd"):
        try:
            body = inflate(data, encoding, limit_bytes=INFLATED_BYTES_MAX, limit_name="x")
        except (TooLarge, MalformedBody):
            continue
        assert len(body) <= INFLATED_BYTES_MAX


def fields(data: bytes) -> None:
    """Header fields and queries are read or refused, never more."""
    text = data.decode("latin-1")
    request = Request("GET", "/", text, {"x-request-id": text})
    with suppress(ValueError):
        request.query_fields()
    assert request_id_of(request.headers).isprintable()
    assert 0 <= negotiation.quality(text, "text/csv") <= 1
    negotiation.choose(text, ("application/json", "text/csv"))
    with suppress(UnsupportedMediaType):
        assert negotiation.content_type(text, ("application/json",), missing=None) == "application/json"
    with suppress(InvalidRequest):
        preconditions.parse_tags("if-match", text, weak_too=False)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "events": events,
    "whole_list": whole_list,
    "graphql": graphql,
    "cursors": cursors,
    "records": records,
    "inflation": inflation,
    "fields": fields,
    "head": head,
    "exchange": exchange,
    "path": path,
}
