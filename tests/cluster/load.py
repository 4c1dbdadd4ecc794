"""Clients that send decisions to one or several nodes while things go wrong, and a look at everything afterwards.

Speaks HTTP alone, so that it holds any store to the same promise. Clients are threads, so a test's body may do to the
servers what it likes, and block. Each repeats what was not acknowledged, as it is, at the next node, until it is
acknowledged or the load ends; what is still open then is of unknown outcome in the ledger.
"""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple

import httpx

from tests.cluster.ledger import Decision, Findings, Ledger, Pair
from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY

EPOCH_MS = 1_700_000_000_000
TS_SPREAD_MS = 40
"""Few different times, so that equal ones are common."""

AGAIN_SECONDS = 0.05
ANSWER_SECONDS_MAX = 60.0
"""A node that lets a client wait longer is a defect, and fails the test."""

CUSTOMERS_AT_ONCE = 50
"""Aliases in one document; the default limit is 64."""

QUALIFIED, NOT_QUALIFIED = "qualified", "not_qualified"


class Shape(NamedTuple):
    """What the load is like.

    clients: each sends one request after another. events: in one request. fresh_share: of them, about identifiers that
    no other event is about, so that the loss of each of them is seen; the others change all the time. audiences: each
    with a segment of its name. pause_seconds: between two requests of a client.
    """

    clients: int = 4
    events: int = 20
    fresh_share: float = 0.7
    churned: int = 50
    audiences: int = 3
    pause_seconds: float = 0.0


class Counts(NamedTuple):
    """What clients met: answers of 503, connections that broke, and the longest time without any acknowledgement."""

    acknowledged: int
    refusals: int
    broken: int
    gap_seconds_max: float


class Load:
    """One load on the nodes at `urls`. name: in its identifiers and audiences, which nobody else may use."""

    def __init__(self, urls: Sequence[str], name: str = "load", seed: str = "load", shape: Shape = Shape()) -> None:  # noqa: B008
        self.ledger = Ledger()
        self.urls = list(urls)
        self._name = name
        self._seed = seed
        self._shape = shape
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._refusals = 0
        self._broken = 0
        self._heard: list[float] = []
        """When the latest load began and ended, and when something was acknowledged in between."""
        self._runs = 0
        self._failure: BaseException | None = None
        self._numbers = itertools.count()

    @property
    def audiences(self) -> list[str]:
        """All that it sends about; the segments have the same names."""
        return [f"{self._name}_{number}" for number in range(self._shape.audiences)]

    def create_segments(self, private_key: str = PRIVATE_KEY) -> None:
        """The segments through which the memberships are seen, at the first node."""
        with _client(self.urls[0], private_key) as client:
            for audience in self.audiences:
                definition = {"definition": {"external": {"external_audience_id": audience}}}
                answer = client.put(f"/v3/segments/{audience}", json=definition)
                assert answer.status_code in {200, 201}, answer.text

    @contextmanager
    def sending(self, key: str = PUBLIC_KEY) -> Iterator[None]:
        """Load while the body runs. A client that is answered wrongly ends, and fails the test when the body ends."""
        self._stopping.clear()
        self._runs += 1
        self._heard = [time.monotonic()]
        with ThreadPoolExecutor(self._shape.clients) as pool:
            for number in range(self._shape.clients):
                pool.submit(self._run, number, key)
            try:
                yield
            finally:
                self._stopping.set()
        if self._failure is not None:
            raise self._failure
        self._heard.append(time.monotonic())

    @property
    def counts(self) -> Counts:
        """By now, in all loads; the gap is that of the latest, and may begin or end with it."""
        with self._lock:
            gaps = [later - earlier for earlier, later in itertools.pairwise(self._heard)]
            return Counts(self.ledger.acknowledged_count, self._refusals, self._broken, max(gaps, default=0.0))

    def wait_for_acknowledgements(self, count: int, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        """Wait, while sending, until `count` more events are acknowledged."""
        goal, deadline = self.counts.acknowledged + count, time.monotonic() + seconds_max
        while self.counts.acknowledged < goal:
            if self._failure is not None:
                raise self._failure
            assert time.monotonic() < deadline, f"after {seconds_max} s {self.counts}, of {goal} acknowledged"
            time.sleep(AGAIN_SECONDS)

    def look(self, url: str | None = None, private_key: str = PRIVATE_KEY) -> Findings:
        """Ask a node (default: the first) for everything that was ever sent, and compare."""
        with _client(url or self.urls[0], private_key) as client:
            seen = _states(client, self.ledger.identifiers, self.audiences)
            return self.ledger.compare(seen, _sizes(client, self.audiences))

    def _run(self, number: int, key: str) -> None:
        try:
            self._send_until_stopped(number, key)
        except BaseException as failure:  # noqa: BLE001  it is raised where the test can see it
            self._failure = failure

    def _send_until_stopped(self, number: int, key: str) -> None:
        random = Random(f"{self._seed} {number} {self._runs}")
        urls = itertools.cycle(self.urls[number % len(self.urls) :] + self.urls[: number % len(self.urls)])
        client = _client(next(urls), key)
        try:
            while not self._stopping.is_set():
                request = self._request(random)
                with self._lock:
                    self.ledger.send(request)
                while not self._stopping.is_set() and not self._deliver(client, request):
                    client.close()
                    client = _client(next(urls), key)
                    self._stopping.wait(AGAIN_SECONDS)
                self._stopping.wait(self._shape.pause_seconds)
        finally:
            client.close()

    def _request(self, random: Random) -> list[Decision]:
        return [
            self._fresh(random) if random.random() < self._shape.fresh_share else self._churn(random)
            for _ in range(self._shape.events)
        ]

    def _fresh(self, random: Random) -> Decision:
        with self._lock:
            identifier = f"{self._name}-{next(self._numbers)}"
        return Decision(Pair(identifier, random.choice(self.audiences)), EPOCH_MS, qualify=True)

    def _churn(self, random: Random) -> Decision:
        pair = Pair(f"{self._name}-churn-{random.randrange(self._shape.churned)}", random.choice(self.audiences))
        return Decision(pair, EPOCH_MS + random.randrange(TS_SPREAD_MS), qualify=random.random() < 0.5)

    def _deliver(self, client: httpx.Client, request: list[Decision]) -> bool:
        """Whether `request` was acknowledged."""
        try:
            answer = client.post("/v3/events", json=[decision.wire() for decision in request])
        except httpx.TimeoutException:
            raise
        except httpx.TransportError:
            with self._lock:
                self._broken += 1
            return False
        assert answer.status_code in {202, 503}, f"{answer.status_code}: {answer.text}"
        with self._lock:
            if answer.status_code == 202:
                self.ledger.acknowledge(request)
                self._heard.append(time.monotonic())
                return True
            self._refusals += 1
        assert int(answer.headers["retry-after"]) > 0, "a refusal says when to come back"
        return False


def _client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=ANSWER_SECONDS_MAX)


def _states(client: httpx.Client, identifiers: Sequence[str], segments: Sequence[str]) -> dict[Pair, int | None]:
    """The state of every identifier in every segment, as `v`."""
    seen: dict[Pair, int | None] = {}
    for start in range(0, len(identifiers), CUSTOMERS_AT_ONCE):
        group = identifiers[start : start + CUSTOMERS_AT_ONCE]
        variables = {f"v{number}": identifier for number, identifier in enumerate(group)}
        declared = ", ".join(f"${name}: String" for name in variables)
        fields = " ".join(f"{name}: customer(fs_user_id: ${name}) {{ ...all }}" for name in variables)
        query = (
            f"query({declared}, $subset: [String], $states: [String]) {{ {fields} }} fragment all on Customer {{ "
            "audiences(subset: $subset, states: $states) { edges { node { name state updated_at } } } }"
        )
        asked = {**variables, "subset": segments, "states": [QUALIFIED, NOT_QUALIFIED]}
        told = _ask(client, query, asked)
        for name, identifier in variables.items():
            nodes = [edge["node"] for edge in told[name]["audiences"]["edges"]]
            assert [node["name"] for node in nodes] == list(segments), f"{identifier}: {nodes}"
            seen |= {Pair(identifier, node["name"]): _v(node) for node in nodes}
    return seen


def _sizes(client: httpx.Client, segments: Sequence[str]) -> dict[str, int]:
    fields = " ".join(f"{segment}: audience(name: {segment!r}) {{ size }}".replace("'", '"') for segment in segments)
    told = _ask(client, f"{{ {fields} }}", {})
    return {segment: told[segment]["size"] for segment in segments}


def _ask(client: httpx.Client, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    answer = client.post("/v3/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
    body = answer.json()
    assert "errors" not in body, answer.text
    data: dict[str, Any] = body["data"]
    return data


def _v(node: Mapping[str, Any]) -> int | None:
    if node["updated_at"] is None:
        assert node["state"] == NOT_QUALIFIED, f"qualified by no decision: {node}"
        return None
    ts_ms = round(float(node["updated_at"]) * 1000)
    return ts_ms * 2 + int(node["state"] == NOT_QUALIFIED)
