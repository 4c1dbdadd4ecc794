"""Clients that send until the server is gone, and remember what it told them.

Each client has its own random generator, its own identifiers and its own segment, so a seed gives the same requests
again; how they interleave is the machine's.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import httpx

from tests.crash.model import CHURN, MARKER, SEGMENTS, Event, Fate, Model, Request, SegmentModel
from tests.serverprocess import ServerProcess

EVENT_CLIENTS = 4
EVENTS_MAX = 50
CHURN_IDENTIFIERS = 40
READ_SHARE = 0.1
EPOCH = 1_700_000_000
TS_SPREAD_SECONDS = 12
"""Few different times, so that equal ones are common."""


class EventClient:
    """Sends requests of 1 to EVENTS_MAX events; now and then asks for what it has just been promised."""

    def __init__(self, name: str, seed: str) -> None:
        self._name = name
        self.acknowledged: list[str] = []
        """The markers of acknowledged requests, for whoever looks while it sends; only ever grows."""
        self._random = Random(seed)
        self._numbers = itertools.count()

    def run(self, server: ServerProcess) -> list[tuple[Request, Fate]]:
        """Send until the connection breaks."""
        outcomes: list[tuple[Request, Fate]] = []
        with server.client(server.public_key) as client:
            while not outcomes or outcomes[-1][1] is not Fate.UNKNOWN:
                request = self._request()
                outcomes.append((request, _send(client, request)))
                if outcomes[-1][1] is Fate.ACKNOWLEDGED:
                    self.acknowledged += request.markers
                if outcomes[-1][1] is Fate.ACKNOWLEDGED and self._random.random() < READ_SHARE:
                    _assert_visible(client, request)
        return outcomes

    def _request(self) -> Request:
        random = self._random
        count = random.choice((1, 2, random.randint(1, EVENTS_MAX)))
        churned = random.sample(range(CHURN_IDENTIFIERS), random.randint(0, min(count - 1, CHURN_IDENTIFIERS)))
        churn = [
            Event(
                f"{self._name}-churn-{number}",
                CHURN,
                random.random() < 0.5,
                EPOCH + random.randrange(TS_SPREAD_SECONDS),
            )
            for number in churned
        ]
        markers = [
            Event(f"{self._name}-{next(self._numbers)}", MARKER, qualify=True, ts=EPOCH)
            for _ in range(count - len(churn))
        ]
        return Request(tuple(random.sample(churn + markers, count)))


class SegmentClient:
    """Creates, changes and deletes one segment."""

    def __init__(self, segment_id: str, seed: str) -> None:
        self.model = SegmentModel(segment_id)
        self._random = Random(seed)

    def run(self, server: ServerProcess) -> None:
        """Write until the connection breaks."""
        with server.client(server.private_key) as client:
            while not self.model.attempted:
                self._write(client, self._random.choice((None, "audience_1", "audience_2", "audience_3")))

    def _write(self, client: httpx.Client, audience: str | None) -> None:
        path = f"/v3/segments/{self.model.segment_id}"
        self.model.attempted = [audience]
        try:
            answer = client.delete(path) if audience is None else client.put(path, json=definition(audience))
        except httpx.TransportError as error:
            _raise_if_timeout(error)
            return
        if answer.status_code == 503:
            self.model.attempted = []
        elif audience is None:
            assert answer.status_code == (404 if self.model.audience is None else 200), answer.text
            self.model.settle(None, 0)
        else:
            assert answer.status_code == (201 if self.model.audience is None else 200), answer.text
            self.model.settle(audience, answer.json()["revision"])


class Clients:
    """All clients of one run; they outlive the server and go on after every restart."""

    def __init__(self, seed: str) -> None:
        self.events = [EventClient(f"c{number}", f"{seed} client {number}") for number in range(EVENT_CLIENTS)]
        self.segment = SegmentClient("crashing", f"{seed} segment")

    @contextmanager
    def sending(self, server: ServerProcess, model: Model) -> Iterator[None]:
        """Load while the body runs; the body must end the server, and that ends the clients."""
        with ThreadPoolExecutor(EVENT_CLIENTS + 1) as pool:
            written = pool.submit(self.segment.run, server)
            sent: list[Future[list[tuple[Request, Fate]]]] = [pool.submit(each.run, server) for each in self.events]
            yield
        written.result()
        for future in sent:
            model.absorb(future.result())


def definition(audience: str) -> dict[str, object]:
    return {"definition": {"external": {"external_audience_id": audience}}}


def create_segments(server: ServerProcess) -> None:
    """The two segments through which the memberships are seen."""
    with server.client(server.private_key) as client:
        for segment in SEGMENTS:
            answer = client.put(f"/v3/segments/{segment}", json=definition(segment))
            assert answer.status_code in {200, 201}, answer.text


def _send(client: httpx.Client, request: Request) -> Fate:
    try:
        answer = client.post("/v3/events", json=[event.wire() for event in request.events])
    except httpx.TransportError as error:
        _raise_if_timeout(error)
        return Fate.UNKNOWN
    assert answer.status_code in {202, 503}, f"{answer.status_code}: {answer.text}"
    return Fate.ACKNOWLEDGED if answer.status_code == 202 else Fate.REFUSED


def _assert_visible(client: httpx.Client, request: Request) -> None:
    query = (
        'query($id: String) { customer(fs_user_id: $id) { audiences(subset: ["marker"]) { edges { node { name } } } } }'
    )
    body = {"query": query, "variables": {"id": request.markers[-1]}}
    try:
        answer = client.post("/v3/graphql", json=body)
    except httpx.TransportError as error:
        _raise_if_timeout(error)
        return
    if answer.status_code == 503:
        # The server is stopping.
        return
    expected = {"data": {"customer": {"audiences": {"edges": [{"node": {"name": MARKER}}]}}}}
    assert answer.json() == expected, f"acknowledged, but not visible: {request.markers[-1]}: {answer.text}"


def _raise_if_timeout(error: httpx.TransportError) -> None:
    """A killed server breaks connections; one that lets a client wait is a defect."""
    if isinstance(error, httpx.TimeoutException):
        raise error
