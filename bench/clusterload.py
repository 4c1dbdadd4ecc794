"""What the bench of a cluster sends by itself: memberships in any density, and a trickle that notices a failover.

Owns the threads that send. Never starts a server.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from bench.answers import EVENTS, GRAPHQL
from bench.processes import BenchError, Endpoint
from bench.texts import python_sdk_body
from bench.world import AUDIENCE_IDS, IDENTIFIER_NAME, MEMBERS_TS_MS, SEGMENT_IDS, member

_BATCH: Final = 500
_SENDERS: Final = 8
_TRICKLES: Final = 8
_ANSWER_SECONDS_MAX: Final = 60.0
_PAUSE_SECONDS: Final = 0.01
HELD_UP_SECONDS: Final = 1.0


def load(endpoint: Endpoint, memberships: int, each: int) -> None:
    """Qualify identifiers for `each` audiences each (at most those of the world), `memberships` in all."""
    identifiers = memberships // each
    per_request = max(1, _BATCH // each)  # identifiers

    def send(first: int) -> None:
        numbers = range(first, min(first + per_request, identifiers))
        events = [_event(member(number), audience) for number in numbers for audience in range(each)]
        _post(endpoint, EVENTS, json.dumps(events).encode(), 202)

    with ThreadPoolExecutor(_SENDERS) as senders:
        for _ in senders.map(send, range(0, identifiers, per_request)):
            pass


class Gap(msgspec.Struct, frozen=True):
    """What clients saw of a failover, for events and for queries. Seconds."""

    sent: int
    refused: int
    longest_seconds: float
    """The slowest request that was answered with success."""
    until_all_seconds: float
    """From the fault to the last answer that it held up by more than `HELD_UP_SECONDS`, or that was a refusal."""


class Trickle:
    """Small requests all the time, each about another identifier, so that every partition is among them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._seen: dict[str, list[tuple[float, float, bool]]] = {"events": [], "queries": []}
        """Kind → (begun, ended, whether with success) of each request."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sends until the end."""
        threads = [
            threading.Thread(target=self._send, args=(kind, number), daemon=True)
            for number in range(_TRICKLES)
            for kind in self._seen
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(_ANSWER_SECONDS_MAX)

    def gap(self, kind: str, fault_at: float) -> Gap:
        """fault_at: of time.monotonic()."""
        seen = self._seen[kind]
        held_up = [
            ended for begun, ended, ok in seen if ended > fault_at and (not ok or ended - begun > HELD_UP_SECONDS)
        ]
        return Gap(
            sent=len(seen),
            refused=sum(not ok for _, _, ok in seen),
            longest_seconds=max((ended - begun for begun, ended, ok in seen if ok), default=0.0),
            until_all_seconds=max((ended - fault_at for ended in held_up), default=0.0),
        )

    def _send(self, kind: str, number: int) -> None:
        while not self._stop.is_set():
            number += _TRICKLES
            begun = time.monotonic()
            if kind == "events":
                event = {**_event(f"gap-{number}", number % len(AUDIENCE_IDS))}
                ok = _answered(self._endpoint, EVENTS, json.dumps(event).encode(), 202)
            else:
                body = python_sdk_body(member(number), SEGMENT_IDS[:3]).encode()
                ok = _answered(self._endpoint, GRAPHQL, body, 200)
            self._seen[kind].append((begun, time.monotonic(), ok))
            time.sleep(_PAUSE_SECONDS)


def _event(value: str, audience: int) -> dict[str, object]:
    return {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {IDENTIFIER_NAME: value},
        "data": {"audience_id": AUDIENCE_IDS[audience], "ts": MEMBERS_TS_MS // 1000},
    }


def _answered(endpoint: Endpoint, path: str, body: bytes, status: int) -> bool:
    try:
        _post(endpoint, path, body, status)
    except (BenchError, OSError, http.client.HTTPException):
        return False
    return True


def _post(endpoint: Endpoint, path: str, body: bytes, status: int) -> None:
    connection = http.client.HTTPConnection(endpoint.host, timeout=_ANSWER_SECONDS_MAX)
    with contextlib.closing(connection):
        headers = {"x-api-key": endpoint.public_key, "content-type": "application/json"}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != status or (path == GRAPHQL and b'"errors"' in said):
            raise BenchError(f"{path}: {answer.status} {said[:400]!r}")
