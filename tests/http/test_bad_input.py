"""Bad input through the real server: a clear error each, never a 5xx, and nothing changes."""

import gzip
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.http.conftest import Served
from tests.http.world import NOW_SECONDS, PRIVATE, PUBLIC, definition, event


class Bad(NamedTuple):
    """A request body that is wrong, and what the answer must say."""

    body: Any
    field: str | None
    reason: str
    """Part of the message."""
    headers: Mapping[str, str] = MappingProxyType({})
    status: int = 400


def identified(**identifiers: Any) -> dict[str, Any]:
    return event(identifiers=identifiers)


def dated(ts: Any) -> dict[str, Any]:
    return event(data={"audience_id": "audience_1", "ts": ts})


def listed(audience_id: Any) -> dict[str, Any]:
    return event(data={"audience_id": audience_id, "ts": 1})


WHOLE = {
    "no JSON": Bad(b"hello", None, "no valid JSON"),
    "truncated JSON": Bad(json.dumps(event()).encode()[:-3], None, "no valid JSON: Input data was truncated"),
    "empty body": Bad(b"", None, "The body is empty"),
    "deep JSON": Bad(b"[" * 100_000 + b"]" * 100_000, None, "nested too deeply"),
    "deep JSON inside": Bad(b'{"type":"passthrough","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "too deep"),
    "501 events": Bad([event()] * 501, None, "501 events; at most 500 are allowed ([limits] events_per_request_max)"),
    "empty array": Bad([], None, "no events"),
    "NaN": Bad(b'{"type":"passthrough","data":{"ts":NaN}}', None, "no valid JSON"),
    "ISO-8859-1 bytes": Bad(json.dumps(identified(email="x")).encode().replace(b'"x"', b'"\xe9"'), None, "UTF-8"),
    "ISO-8859-1 charset": Bad(
        event(), None, "charset ISO-8859-1", {"content-type": "application/json; charset=ISO-8859-1"}, 415
    ),
    "wrong media type": Bad(
        event(), None, "Content-Type text/xml is not read here; accepted: appl", {"content-type": "text/xml"}, 415
    ),
    "form": Bad(b"a=b", None, "accepted: ", {"content-type": "application/x-www-form-urlencoded"}, 415),
    "gzip bomb": Bad(
        gzip.compress(b" " * 100_000_000), None, "[limits] events_inflated_bytes_max", {"content-encoding": "gzip"}, 413
    ),
    "torn gzip": Bad(gzip.compress(b"[]" * 1000)[:-9], None, "ends too early", {"content-encoding": "gzip"}),
    "no gzip": Bad(event(), None, "no valid gzip", {"content-encoding": "gzip"}),
    "bad NDJSON line": Bad(
        json.dumps(event()).encode() + b"\n{", None, "Line 2", {"content-type": "application/x-ndjson"}
    ),
}  # fmt: skip

EVENTS = {
    "a number": Bad(7, "", "must be an object"),
    "an array in an array": Bad([[event()]], "", "must be an object"),
    "null": Bad(None, "", "must be an object"),
    "type missing": Bad({"action": "qualify"}, "type", "`type`"),
    "type is a number": Bad(event(type=7), "type", "string"),
    "action unknown": Bad(event(action="Qualify"), "action", "qualify"),
    "action missing": Bad(event(action=None), "action", "action"),
    "identifiers is an array": Bad(event(identifiers=["fs_user_id"]), "identifiers", "object"),
    "data is a string": Bad(event(data="audience_1"), "data", "object"),
    "two high identifiers": Bad(identified(fs_user_id="a", email="b"), "identifiers", "one"),
    "no identifier": Bad(identified(), "identifiers", "identifier"),
    "only a low identifier": Bad(identified(vuid="v"), "identifiers", "high"),
    "unknown identifier name": Bad(identified(passport="p"), "identifiers.passport", "not configured"),
    "empty value": Bad(identified(fs_user_id=""), "identifiers.fs_user_id", "empty"),
    "value is a number": Bad(identified(fs_user_id=17), "identifiers.fs_user_id", "string"),
    "10 kB identifier": Bad(identified(fs_user_id="x" * 10_000), "identifiers.fs_user_id", "at most 256"),
    "NUL": Bad(identified(fs_user_id="a\x00b"), "identifiers.fs_user_id", "U+0000"),
    "ts negative": Bad(dated(-1), "data.ts", "negative"),
    "ts in milliseconds": Bad(dated(1_748_851_070_000), "data.ts", "milliseconds"),
    "ts in the far future": Bad(dated(int(NOW_SECONDS) + 4_000), "data.ts", "ahead of the clock"),
    "ts is a string": Bad(dated("1748851070"), "data.ts", "number"),
    "ts is true": Bad(dated(True), "data.ts", "number"),
    "ts with four decimals": Bad(dated(1.0001), "data.ts", "decimals"),
    "audience id too long": Bad(listed("a" * 129), "data.audience_id", "at most 128"),
    "audience id with a slash": Bad(listed("a/b"), "data.audience_id", "letters, digits"),
    "audience id empty": Bad(listed(""), "data.audience_id", "empty"),
    "audience id missing": Bad(event(data={}), "data.audience_id", "audience_id"),
    "audience id is a number": Bad(listed(7), "data.audience_id", "string"),
}

SEGMENTS = {
    "no JSON": Bad(b"{", None, "no valid JSON"),
    "an array": Bad([], None, "must be a JSON object"),
    "deep JSON": Bad(b"[" * 30_000 + b"]" * 30_000, None, "nested too deeply"),
    "no definition": Bad({}, "definition", "external_audience_id"),
    "not external": Bad({"definition": {"behavioral": {}}}, "definition", "Only `external` definitions"),
    "unknown field": Bad(definition(colour="red"), "colour", "Unknown field"),
    "audience with spaces": Bad(definition("a b"), "definition.external.external_audience_id", "letters, digits"),
    "description is a number": Bad(definition(description=7), "description", "string"),
    "long description": Bad(definition(description="x" * 4097), "description", "at most 4096"),
    "metadata of numbers": Bad(definition(metadata={"a": 1}), "metadata.a", "string"),
    "NUL in metadata": Bad(definition(metadata={"a": "\x00"}), "metadata.a", "NUL"),
    "much metadata": Bad(definition(metadata={str(n): "" for n in range(65)}), "metadata", "at most 64"),
    "wrong media type": Bad(definition(), None, "Content-Type text/plain", {"content-type": "text/plain"}, 415),
    "too large": Bad(b" " * 65_537, None, "65536 bytes ([limits] segments_body_bytes_max)", {}, 413),
    "ISO-8859-1 bytes": Bad(b'{"description":"\xe9"}', None, "UTF-8"),
}


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def sent(bad: Bad, key: dict[str, str]) -> dict[str, str]:
    return {"content-type": "application/json", **key, **bad.headers}


@pytest.fixture
async def before(served: Served) -> Any:
    """The state after a little good input, which must stay."""
    await served.client.post("/v3/events", headers=PUBLIC, json=event())
    await served.client.put("/v3/segments/gold", headers=PRIVATE, json=definition())
    state = served.world.state()
    assert all(state)
    return state


@pytest.mark.parametrize("bad", WHOLE.values(), ids=WHOLE.keys())
async def test_an_upload_that_cannot_be_read(served: Served, before: Any, bad: Bad) -> None:
    answer = await served.client.post("/v3/events", headers=sent(bad, PUBLIC), content=encoded(bad.body))
    shown = answer.json()
    assert answer.status_code == shown["status"] == bad.status
    assert bad.reason in shown["detail"]["message"]
    assert shown["request_id"] == answer.headers["x-request-id"]
    assert served.world.state() == before


@pytest.mark.parametrize("bad", EVENTS.values(), ids=EVENTS.keys())
async def test_an_invalid_event_among_good_ones_is_named_and_none_is_applied(
    served: Served, before: Any, bad: Bad
) -> None:
    body = encoded([identified(fs_user_id="good"), bad.body, identified(fs_user_id="good too")])
    answer = await served.client.post("/v3/events", headers=PUBLIC, content=body)
    assert answer.status_code == 400
    invalids = answer.json()["detail"]["invalids"]
    assert {invalid["event"] for invalid in invalids} == {1}
    by_field = {invalid["field"]: invalid["message"] for invalid in invalids}
    assert bad.field is not None
    assert bad.reason.lower() in by_field[bad.field].lower()
    assert served.world.state() == before


async def test_a_lone_surrogate_is_refused(served: Served, before: Any) -> None:
    body = (
        b'{"type":"passthrough","action":"qualify","identifiers":{"fs_user_id":"\\ud800"},"data":{"audience_id":"a"}}'
    )
    answer = await served.client.post("/v3/events", headers=PUBLIC, content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert served.world.state() == before


@pytest.mark.parametrize("bad", SEGMENTS.values(), ids=SEGMENTS.keys())
@pytest.mark.parametrize("path", ["/v3/segments/gold", "/v3/segments/new", "/v3/segments/gold:validate"])
async def test_a_bad_definition(served: Served, before: Any, bad: Bad, path: str) -> None:
    answer = await served.client.post(path, headers=sent(bad, PRIVATE), content=encoded(bad.body))
    shown = answer.json()
    assert answer.status_code == shown["status"] == bad.status
    assert bad.reason in shown["message"]
    assert shown.get("field") == bad.field
    assert served.world.state() == before


@pytest.mark.parametrize("segment_id", ["a%2Fb", "a%20b", "a-b", "%C3%A9", "a.b", "%00", "x" * 129, "%E2%84%AA"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_bad_segment_id(served: Served, before: Any, method: str, segment_id: str) -> None:
    answer = await served.client.request(
        method, f"{served.url}/v3/segments/{segment_id}", headers=PRIVATE, content=encoded(definition())
    )
    assert answer.status_code == 400
    assert answer.json()["field"] == "segment_id"
    assert served.world.state() == before


@pytest.mark.parametrize("key", [{}, {"x-api-key": "wrong"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v3/events"), ("PUT", "/v3/segments/new"), ("POST", "/v3/graphql")]
)
async def test_no_key_and_a_wrong_key(served: Served, before: Any, method: str, path: str, key: dict[str, str]) -> None:
    body = event() if path.endswith("events") else definition()
    answer = await served.client.request(method, path, headers=key, json=body)
    assert (answer.status_code, answer.content) == (403, b'{"message":"Forbidden"}')
    assert served.world.state() == before


async def test_a_public_key_on_the_segments_api(served: Served, before: Any) -> None:
    for method in ("PUT", "POST", "DELETE", "GET"):
        answer = await served.client.request(method, "/v3/segments/gold", headers=PUBLIC, content=encoded(definition()))
        assert (answer.status_code, answer.content) == (403, b'{"message":"Forbidden"}')
    assert served.world.state() == before


@pytest.mark.parametrize(
    ("query", "variables", "reason"),
    [
        ("{ customer", None, "Syntax Error"),
        ('{ customer(passport: "p") { audiences { edges { cursor } } } }', None, "Unknown argument 'passport'"),
        ("query ($id: String) { customer(fs_user_id: $id) { audiences { edges { cursor } } } }", {"id": 7}, "$id"),
        ("{ audiences " + "{ edges { node " * 500 + "}" * 1001, None, "deep"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(10_000)) + " }", None, ""),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(100)) + " }", None, "alias"),
        ("{ __typename " + " " * 300_000 + "}", None, "[limits] graphql_body_bytes_max"),
    ],
    ids=["syntax", "unknown identifier", "wrong variable", "depth 1000", "10,000 aliases", "100 aliases", "too large"],
)
async def test_a_bad_query(served: Served, before: Any, query: str, variables: Any, reason: str) -> None:
    answer = await served.client.post(
        "/v3/graphql",
        headers={**PUBLIC, "accept": "application/graphql-response+json"},
        json={"query": query, "variables": variables},
    )
    assert answer.status_code == (413 if "body_bytes_max" in reason else 400)
    shown = answer.json()
    assert "data" not in shown
    assert reason.lower() in shown["errors"][0]["message"].lower()
    assert shown["errors"][0]["extensions"]["code"]
    assert served.world.state() == before
