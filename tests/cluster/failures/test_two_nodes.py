"""Two nodes are one service: what is done at one is seen at the other, at once or within a moment."""

import subprocess
import time
from collections.abc import Callable

from tests.cluster.cluster import Cluster
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import Service, client_of, is_member, put_segment, tell
from tests.cluster.failures.test_outage import event
from tests.cluster.failures.test_servers import REGISTRY_SLOT
from tests.cluster.load import EPOCH_MS
from tests.serverprocess import PRIVATE_KEY, ROOT

LOOKS_SECONDS_MAX = 30.0


def seconds_until(true: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < LOOKS_SECONDS_MAX
        time.sleep(0.01)
    return time.monotonic() - began


def test_segments_and_keys_made_at_one_node_are_seen_at_the_other(serve: Serve) -> None:
    service = serve(2)
    one, other = service.urls
    segments, keys = [], []
    with client_of(other, PRIVATE_KEY) as client:
        for number in range(5):
            put_segment(one, f"s{number}")
            segments.append(seconds_until(lambda: client.get(f"/v3/segments/s{number}").status_code == 200))  # noqa: B023
        with client_of(one, PRIVATE_KEY) as deleting:
            assert deleting.delete("/v3/segments/s0").status_code == 200
        seconds_until(lambda: client.get("/v3/segments/s0").status_code == 404)
    for _ in range(2):
        secret = created_key(service)
        with client_of(other, secret) as client:
            keys.append(seconds_until(lambda: client.get("/v3/segments").status_code == 200))
    tell("seen at the other node", segment_seconds_max=max(segments), key_seconds_max=max(keys))


def created_key(service: Service) -> str:
    """The secret of a private key, made with the configuration of the first node."""
    command = service.nodes[0].command("keys", "--right", "private")
    command.insert(command.index("keys") + 1, "create")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_one_node_acknowledged_is_in_the_next_answer_of_the_other_also_right_after_a_failover(
    whole: Cluster, serve: Serve
) -> None:
    service = serve(2)
    one, other = service.urls
    put_segment(one, "seen")
    put_segment(other, "seen")
    master = whole.master_of(REGISTRY_SLOT)
    with client_of(one) as writing, client_of(other) as reading:
        for number in range(120):
            if number == 60:
                master.kill()
            # Both nodes take turns, and so do the partitions.
            writing, reading = reading, writing  # noqa: PLW2901
            assert writing.post("/v3/events", json=[event(f"u{number}", "seen")]).status_code == 202
            assert is_member(reading, f"u{number}", "seen"), number
    assert whole.wait_for_failover(REGISTRY_SLOT, master) is not master


def test_an_audience_that_one_node_deletes_is_gone_in_the_next_answer_of_the_other(serve: Serve) -> None:
    service = serve(2)
    one, other = service.urls
    put_segment(one, "gone")
    with client_of(one, PRIVATE_KEY) as first, client_of(other, PRIVATE_KEY) as second:
        seconds_until(lambda: second.get("/v3/segments/gone").status_code == 200)
        for number in range(5):
            later_ms = int(time.time() * 1000) + number
            for client in (first, second):
                sent = [event(f"u{each}", "gone", at_ms=later_ms) for each in range(50)]
                assert client.post("/v3/events", json=sent).status_code == 202
            assert is_member(second, "u7", "gone")
            assert first.delete("/v3/audiences/gone").status_code == 202
            assert not is_member(second, "u7", "gone"), number
            assert not is_member(first, "u7", "gone"), number
            # What was before the deletion does not bring it back, whoever takes it.
            assert second.post("/v3/events", json=[event("u7", "gone", at_ms=EPOCH_MS)]).status_code == 202
            assert not is_member(first, "u7", "gone"), number
            first, second = second, first  # noqa: PLW2901
