"""The whole cluster is away, or one of its parts: nodes say so and are alive, and everything goes on by itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import Service, Watcher, client_of, put_segment, tell
from tests.cluster.failures.test_servers import REGISTRY_SLOT, STEADY, loaded, look_everywhere
from tests.cluster.load import EPOCH_MS
from tests.serverprocess import PRIVATE_KEY

PATIENCE_SECONDS = 2.0
IMPATIENT = {"acknowledge_seconds_max": PATIENCE_SECONDS}


@pytest.mark.parametrize(
    ("seconds", "patience_seconds"), [(6, PATIENCE_SECONDS), pytest.param(30, 10, marks=pytest.mark.soak)]
)
def test_the_cluster_away_is_503_while_nodes_are_alive_and_goes_on_by_itself(
    whole: Cluster, serve: Serve, seconds: int, patience_seconds: float
) -> None:
    service = serve(2, {"acknowledge_seconds_max": patience_seconds})
    load = loaded(service, "away")
    with load.sending(), Watcher(service.urls[0], load.audiences[0]).watching() as watcher:
        load.wait_for_acknowledgements(STEADY)
        whole.kill_all()
        time.sleep(seconds)
        refusals = load.counts.refusals
        whole.start_all()
        load.wait_for_acknowledgements(2 * STEADY)
    tell(
        f"the cluster away for {seconds} s",
        refused_writes=load.counts.refusals,
        refused_queries=watcher.refused,
        seconds_without_acknowledgement=load.counts.gap_seconds_max,
        seconds_without_query=watcher.gap_seconds_max,
        slowest_query_seconds=watcher.slowest_seconds,
    )
    assert refusals > 0
    # Not ready, as no part of the cluster answers, but alive.
    assert set(watcher.unhealthy) <= {"/readyz"}
    look_everywhere(load)


def test_whatever_many_clients_ask_while_the_cluster_is_away_each_is_refused_in_its_time(
    whole: Cluster, serve: Serve
) -> None:
    service = serve(1, IMPATIENT)
    put_segment(service.urls[0], "before")
    whole.kill_all()
    clients, numbers = 8, count()

    def ask(act: str) -> tuple[str, int, float]:
        began = time.monotonic()
        with client_of(service.urls[0], PRIVATE_KEY) as client:
            try:
                answer = asked(client, act, f"new_{next(numbers)}")
            except httpx.TimeoutException:
                return act, 0, time.monotonic() - began
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
        return act, answer.status_code, time.monotonic() - began

    kinds = ("segment", "event", "audience", "members", "forget", "delete")
    with ThreadPoolExecutor(clients * len(kinds)) as pool:
        answers = list(pool.map(ask, kinds * clients))
    assert {(act, status) for act, status, _ in answers} == {(act, 503) for act in kinds}
    slowest = max(seconds for _, _, seconds in answers)
    tell("many clients while the cluster is away", requests=len(answers), slowest_answer_seconds=slowest)
    # One after the other they would take as long as all of them together.
    assert slowest < clients * PATIENCE_SECONDS / 2


def asked(client: httpx.Client, act: str, name: str) -> httpx.Response:
    """A request that cannot be answered without the cluster."""
    match act:
        case "segment":
            return client.put(f"/v3/segments/{name}", json={"definition": {"external": {"external_audience_id": name}}})
        case "event":
            return client.post("/v3/events", json=[event(name, name)])
        case "audience":
            return client.get("/v3/audiences")
        case "members":
            return client.get("/v3/segments/before/members")
        case "forget":
            return client.post("/v3/compliance/gdpr/delete", json=[{"fs_user_id": name}])
        case _:
            return client.delete("/v3/audiences/before")


def event(identifier: str, audience: str, *, at_ms: int = EPOCH_MS) -> dict[str, object]:
    return {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": identifier},
        "data": {"audience_id": audience, "ts": at_ms / 1000},
    }


def resident_bytes(service: Service) -> int:
    with open(f"/proc/{service.nodes[0].pid}/status", encoding="ascii") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_a_crowd_on_a_part_that_is_away_is_refused_early_and_memory_is_bounded(whole: Cluster, serve: Serve) -> None:
    # A queue of some requests; a master that is frozen with its replicas, so that nobody takes over.
    queue = {"group_changes_max": 500, "commit_queue_changes_max": 2_000}
    service = serve(1, IMPATIENT, runtime=queue, imports={"slice_changes": 500})
    url = service.urls[0]
    put_segment(url, "crowd")
    with client_of(url) as client:
        assert client.post("/v3/events", json=[event("first", "crowd")]).status_code == 202
    master = whole.master_of(REGISTRY_SLOT)
    frozen = [master, *whole.replicas_of(master)]
    before = resident_bytes(service)
    for server in frozen:
        server.freeze()
    refusals: list[tuple[str, float]] = []

    def send(number: int) -> None:
        with client_of(url) as client:
            for turn in range(3):
                events = [event(f"c{number}-{turn}-{each}", "crowd") for each in range(500)]
                began = time.monotonic()
                answer = client.post("/v3/events", json=events)
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
                refusals.append((answer.text, time.monotonic() - began))

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(send, range(24)))
    grown = resident_bytes(service) - before
    early = [seconds for text, seconds in refusals if "Too many writes are waiting" in text]
    tell("a crowd on a frozen part", refused=len(refusals), early=len(early), grown_mib=grown / 2**20)
    # How many depends on how fast they come; that there are some shows that a full queue is told at once.
    assert early
    # What waits is bounded by the queue, whoever sends how much: 36,000 events here, of which it holds 2,000.
    assert grown < 64 * 2**20
    for server in frozen:
        server.thaw()
    with client_of(url) as client:
        deadline = time.monotonic() + 60.0
        while client.post("/v3/events", json=[event("last", "crowd")]).status_code != 202:
            assert time.monotonic() < deadline
