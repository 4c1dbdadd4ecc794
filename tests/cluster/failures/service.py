"""Nodes of segmentd over a real cluster, as an operator runs them, and what people see of them meanwhile.

Invariants:
1. A node keeps its port and its data folder over every start, unless a test removes the folder.
2. `close` holds every node's log to what a log must be: no traceback, and no flood of lines however long the trouble.
"""

import itertools
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.client.conftest import ServerAtPort
from tests.cluster.cluster import Cluster
from tests.docs.walk import free_port
from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY

LINES_OF_A_LIFE_MAX = 60
"""Start, stop and one failover take some 20; a warning for each request, or several a second, take hundreds."""

HEAD = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[(\w+) *\] ")
"""How a line of the log begins: when, and how grave."""

WATCH_SECONDS = 0.02
SIZE_QUERY = '{{ audience(name: "{}") {{ size }} }}'


class SegmentdNode(ServerAtPort):
    """One node, whose data folder can be lost."""

    def __init__(self, folder: Path, cluster: Cluster, store: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
        folder.mkdir()
        settings = {"kind": "cluster", "addresses": cluster.addresses, "figures_seconds": 1, **store}
        super().__init__(folder, {**sections, "store": settings}, free_port())

    def lose_data(self) -> None:
        """As if its machine were gone and another one took its place."""
        shutil.rmtree(self.data)

    def lines_of(self, level: str, text: str) -> list[str]:
        """What it logged of that gravity and with that text."""
        return [line for line in self.log if (head := HEAD.match(line)) and head[1] == level and text in line]

    def log_complaint(self) -> str | None:
        """What is wrong with its log: a traceback, or too many lines in one of its lives."""
        if "Traceback" in self.log_text():
            return f"a traceback:\n{self.log_text()}"
        lives = [list(lines) for ended, lines in itertools.groupby(self.log, lambda line: line.startswith("-- "))]
        most = max(lives, key=len, default=[])
        if len(most) > LINES_OF_A_LIFE_MAX:
            kinds = Counter(re.sub(r"\d+", "N", line.partition("Z ")[2])[:80] for line in most)
            return f"{len(most)} lines in one life, most of them {kinds.most_common(5)}"
        return None


class Service:
    """`count` nodes, started; store, sections: of the configuration of each."""

    def __init__(self, folder: Path, cluster: Cluster, count: int, store: Mapping[str, Any], **sections: Any) -> None:
        self.nodes = [SegmentdNode(folder / f"node-{number}", cluster, store, sections) for number in range(count)]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def close(self) -> None:
        for node in self.nodes:
            node.close()
            print(f"log of {node.config.parent.name}:\n{node.log_text()}")

    def check_logs(self) -> None:
        complaints = [f"{node.config.parent.name}: {said}" for node in self.nodes if (said := node.log_complaint())]
        assert not complaints, "\n".join(complaints)


class Watcher:
    """Somebody who asks a node for a size all the time, and looks after its health.

    gap_seconds_max: the longest time in which no query was answered. unhealthy: looks that were not answered with 200.
    """

    def __init__(self, url: str, segment: str) -> None:
        self._url = url
        self._query = {"query": SIZE_QUERY.format(segment)}
        self._stopping = threading.Event()
        self._answered: list[float] = []
        self._failure: BaseException | None = None
        self.refused = 0
        self.unhealthy: Counter[str] = Counter()
        self.slowest_seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[Self]:
        self._answered.append(time.monotonic())
        threads = [threading.Thread(target=self._run, args=(ask,)) for ask in (self._ask, self._look)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
        self._answered.append(time.monotonic())
        if self._failure is not None:
            raise self._failure

    @property
    def gap_seconds_max(self) -> float:
        return max(later - earlier for earlier, later in itertools.pairwise(self._answered))

    def _run(self, act: Any) -> None:
        try:
            with httpx.Client(base_url=self._url, headers={"x-api-key": PUBLIC_KEY}, timeout=60.0) as client:
                while not self._stopping.is_set():
                    act(client)
                    self._stopping.wait(WATCH_SECONDS)
        except BaseException as failure:  # noqa: BLE001  it is raised where the test can see it
            self._failure = failure

    def _ask(self, client: httpx.Client) -> None:
        began = time.monotonic()
        answer = client.post("/v3/graphql", json=self._query)
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
            self.refused += 1
            return
        body = answer.json()
        assert "errors" not in body, body
        assert body["data"]["audience"]["size"] >= 0
        self._answered.append(time.monotonic())

    def _look(self, client: httpx.Client) -> None:
        for path in ("/healthz", "/readyz", "/metrics"):
            if client.get(path).status_code != 200:
                self.unhealthy[path] += 1


def put_segment(url: str, name: str, audience: str | None = None) -> None:
    """A segment that shows an audience, by default that of its own name."""
    definition = {"definition": {"external": {"external_audience_id": audience or name}}}
    with client_of(url, PRIVATE_KEY) as client:
        answer = client.put(f"/v3/segments/{name}", json=definition)
        assert answer.status_code in {200, 201}, answer.text


def client_of(url: str, key: str = PUBLIC_KEY) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=60.0)


def is_member(client: httpx.Client, identifier: str, segment: str) -> bool:
    """What a query says now."""
    subset = f'audiences(subset: ["{segment}"]) {{ edges {{ cursor }} }}'
    query = f'{{ customer(fs_user_id: "{identifier}") {{ {subset} }} }}'
    answer = client.post("/v3/graphql", json={"query": query})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert "errors" not in body, body
    return bool(body["data"]["customer"]["audiences"]["edges"])


def tell(what: str, **figures: object) -> None:
    """Figures for the documentation, seen with `pytest -s`."""
    shown = ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )
    print(f"figures: {what}: {shown}")


def first_slots(cluster: Cluster, count: int) -> Sequence[int]:
    """Slots of the first master that have keys of a partition in them, lowest first."""
    owner = cluster.masters()[0]
    with owner.connection() as connection:
        view = owner.views()[owner.node_id]
        filled = [slot for part in view.slots for slot in part if connection.call("CLUSTER", "COUNTKEYSINSLOT", slot)]
    return filled[:count]
