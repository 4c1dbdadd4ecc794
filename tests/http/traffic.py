"""Generated HTTP/1.1 traffic, good and bad, and what came back for it. Seeded: the same number, the same bytes."""

import gzip
import json
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from tests.http.world import event

HOST = b"host: x.example"
PUBLIC_KEY = b"x-api-key: test-public"
QUERY = (
    "query($userId: String, $audiences: [String]) {customer(fs_user_id: $userId) "
    "{audiences(subset: $audiences) {edges {node {name state}}}}}"
)
_MADE_ID = re.compile(rb"[0-9a-f]{12}-[0-9a-f]+")


class Reply(NamedTuple):
    """One answer without what differs from call to call."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def replies(received: bytes) -> list[Reply]:
    """All answers in `received`; what is not whole is the last one's body."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        if not first.startswith(b"HTTP/1.1 "):
            found.append(Reply(0, {}, received))  # another protocol, or not whole
            break
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        size = int(headers.get(b"content-length", 0))
        headers.pop(b"date", None)
        headers = {name: _MADE_ID.sub(b"<id>", value) for name, value in headers.items()}
        body = _MADE_ID.sub(b"<id>", rest[:size])
        headers.pop(b"content-length", None)  # ids of another length; the real one cut the body
        found.append(Reply(int(first.split(b" ")[1]), headers, body))
        received = rest[size:]
    return found


def plain_event(number: int, extra: bytes = b"") -> bytes:
    """A request that the lane takes."""
    body = json.dumps(event(identifiers={"fs_user_id": f"u-{number}"})).encode()
    return b"POST /v3/events HTTP/1.1\r\n%b\r\n%b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        HOST,
        PUBLIC_KEY,
        extra,
        len(body),
        body,
    )


def plain_query(extra: bytes = b"") -> bytes:
    """A request that the lane takes."""
    body = json.dumps({"query": QUERY, "variables": {"userId": "u-1", "audiences": ["gold", "none"]}}).encode()
    head = b"POST /v3/graphql HTTP/1.1\r\n%b\r\n%b\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (HOST, PUBLIC_KEY, extra, len(body)) + body


def _event_body(rng: random.Random) -> bytes:
    one = event(identifiers={"fs_user_id": f"u-{rng.randrange(5)}"}, action=rng.choice(["qualify", "disqualify"]))
    good = json.dumps(one).encode()
    return rng.choice(
        [
            good,
            good,
            good,
            json.dumps([one] * rng.randrange(4)).encode(),
            good[:-1],
            b"",
            b"[]",
            b"null",
            b'"\xff"',
            json.dumps(event(action=7)).encode(),
            b" " * 300_000 + good,
            good + b"\r\n",
            b"0\r\n\r\n",
            gzip.compress(good, mtime=0),
        ]
    )


def _query_body(rng: random.Random) -> bytes:
    good = {"query": QUERY, "variables": {"userId": "u-1", "audiences": ["gold"]}}
    return rng.choice(
        [
            *[json.dumps(good).encode()] * 3,
            b"{",
            b"[]",
            b"",
            json.dumps({"query": "{ nothing }"}).encode(),
            json.dumps({**good, "variables": {"userId": 7}}).encode(),
            json.dumps({"query": "{"}).encode(),
            json.dumps({"query": "{ audiences { edges { node { name size } } } }"}).encode(),
        ]
    )


def _line(rng: random.Random) -> tuple[bytes, Callable[[random.Random], bytes]]:
    usual = [(b"POST /v3/events HTTP/1.1", _event_body), (b"POST /v3/graphql HTTP/1.1", _query_body)]
    if rng.random() < 0.8:
        return rng.choice(usual)
    line = rng.choice(
        [
            b"GET /healthz HTTP/1.1",
            b"GET /nowhere HTTP/1.1",
            b"POST /v3/events HTTP/1.0",
            b"POST /v3/events?x=1 HTTP/1.1",
            b"post /v3/events HTTP/1.1",
            b"POST http://x.example/v3/events HTTP/1.1",
            b"POST //v3/events HTTP/1.1",
            b"POST /v3/events/ HTTP/1.1",
            b"POST /v3/%65vents HTTP/1.1",
            b"POST  /v3/events HTTP/1.1",
            b"POST /v3/events",
            b"POST /v3/events HTTP/1.1 ",
            b"POST /v3/events HTTP/2.0",
            b"POST\t/v3/events HTTP/1.1",
            b"",
            b"\x16\x03\x01",
            b"GET /v3/graphql?query={__typename} HTTP/1.1",
            b"DELETE /v3/events HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"GET /v3/segments HTTP/1.1",
        ]
    )
    return line, _event_body


def _odd_headers(rng: random.Random) -> list[bytes]:
    return rng.choice(
        [
            [b"HOST: y"],
            [b"X-API-KEY: test-public"],
            [b"x-api-key: wrong"],
            [b"X-Odd: \t tabs and spaces \t "],
            [b"x-empty:"],
            [b"x-folded: a\r\n b"],
            [b"x-folded: a\r\n\tcontent-length: 3"],
            [b"x-odd : space before the colon"],
            [b"no colon"],
            [b": no name"],
            [b"x-high: \xe9"],
            [b"x-nul: a\x00b"],
            [b"x-bell: \x07"],
            [b"x-del: \x7f"],
            [b"x-cr: a\rb"],
            [b"x-lf: a\nx-more: b"],
            [b"x-end: a\n\nGET /healthz HTTP/1.1"],
            [b"n\xe4me: x"],
            [b"x-a: 1", b"x-a: 2"],
            [b"x-%d: %d" % (number, number) for number in range(100)],
            [b"x-%d: 1" % number for number in range(45)],
            [b"x-large: " + b"a" * rng.choice([7_000, 8_500, 33_000])],
            [b"expect: 100-continue"],
            [b"te: trailers"],
            [b"upgrade: websocket", b"connection: upgrade"],
            [b"connection: close"],
            [b"Connection: Close"],
            [b"connection: keep-alive"],
            [b"connection: keep-alive, close"],
            [b"connection: x-a"],
            [b"accept: text/html"],
            [b"accept: application/graphql-response+json"],
            [b"accept: application/problem+json"],
            [b"origin: https://a.b"],
            [b"x-request-id: mine"],
            [b"x-request-id: not good"],
            [b"traceparent: 00-ab-cd-01"],
            [b"content-encoding: gzip"],
            [b"content-encoding: br"],
            [b"content-type: application/x-ndjson"],
            [b"content-type: text/plain"],
            [b"accept: "],
            [b"content-type: application/json; charset=latin-1"],
            [b"Transfer-Encoding: identity"],
            [b"trailer: x"],
            [b"\tx: y"],
        ]
    )


def _framing(rng: random.Random, body: bytes) -> tuple[list[bytes], bytes]:
    size = len(body)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else b"0\r\n\r\n"
    if rng.random() < 0.75:
        return [b"content-length: %d" % size], body
    return rng.choice(
        [
            ([b"Content-Length:%d" % size], body),
            ([b"content-length: 000%d" % size], body),
            ([], b""),
            ([], body),
            ([b"transfer-encoding: chunked"], chunked),
            ([b"transfer-encoding: Chunked"], chunked),
            ([b"content-length: %d" % size, b"transfer-encoding: chunked"], chunked),
            ([b"transfer-encoding: chunked", b"content-length: 5"], chunked),
            ([b"transfer-encoding: xchunked"], chunked),
            ([b"transfer-encoding : chunked", b"content-length: %d" % size], body),
            ([b"content-length: %d" % size] * 2, body),
            ([b"transfer-encoding:\x0bchunked", b"content-length: %d" % size], body),
            ([b"content-length: %d" % size, b"content-length: %d" % (size + 1)], body),
            ([b"content-length: -1"], body),
            ([b"content-length: +%d" % size], body),
            ([b"content-length: 0x%x" % size], body),
            ([b"content-length:"], body),
            ([b"content-length: %d, %d" % (size, size)], body),
            ([b"content-length: %d " % size], body),
            ([b"content-length: %d" % (size + 1)], body),
            ([b"content-length: %d" % max(size - 1, 0)], body),
            ([b"content-length: 1_0"], body),
            ([b"content-length: " + b"9" * 30], body),
            ([b"content-length: 99999999"], body),
            ([b"content-length: \xb2"], body),
            ([b"content_length: 3", b"content-length: %d" % size], body),
        ]
    )


def request(rng: random.Random) -> bytes:
    """One request; most are well-formed, each part may be odd."""
    line, body_of = _line(rng)
    framing, body = _framing(rng, body_of(rng))
    headers = [HOST, PUBLIC_KEY, *framing]
    if body_of is _query_body and rng.random() < 0.9:
        headers.append(b"content-type: application/json")
    if rng.random() < 0.1:
        headers.remove(rng.choice([HOST, PUBLIC_KEY]))
    if rng.random() < 0.35:
        headers += _odd_headers(rng)
    rng.shuffle(headers)
    end = b"\n" if rng.random() < 0.03 else b"\r\n"
    return end.join([line, *headers, b"", b""]) + body


def conversation(number: int) -> bytes:
    """What one client sends: one to four requests, ahead of the answers."""
    rng = random.Random(number)
    return b"".join(request(rng) for _ in range(rng.choice([1, 1, 2, 3, 4])))
