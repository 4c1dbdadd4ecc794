"""The load holds a real server to its promise: what is lost, invented or miscounted is found, and nothing else is."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.client.conftest import ServerAtPort
from tests.cluster.ledger import NOTHING_WRONG, Decision, Pair
from tests.cluster.load import EPOCH_MS, Load, Shape
from tests.docs.walk import free_port
from tests.serverprocess import ServerProcess, log_shown

SHAPE = Shape(clients=3, events=10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as server, log_shown(server):
        yield server


@pytest.fixture
def unused_port() -> int:
    return free_port()


def send(server: ServerProcess, decision: Decision) -> None:
    """Behind the back of the load."""
    with server.client(server.public_key) as client:
        assert client.post("/v3/events", json=[decision.wire()]).status_code == 202


def loaded(server: ServerProcess) -> Load:
    """What was sent to `server`, and acknowledged."""
    load = Load([server.url], shape=SHAPE)
    load.create_segments()
    with load.sending():
        load.wait_for_acknowledgements(500)
    assert load.look() == NOTHING_WRONG
    return load


def test_nothing_is_wrong_with_a_server_that_keeps_its_promise_and_the_sizes_are_the_recount(
    server: ServerProcess,
) -> None:
    load = loaded(server)
    counts = load.counts
    assert (counts.refusals, counts.broken, load.ledger.unknown_count) == (0, 0, 0)
    assert counts.acknowledged >= 500
    for name in load.audiences:
        query = {"query": f'{{ audience(name: "{name}") {{ size }} }}'}
        with server.client(server.private_key) as client:
            told = client.post("/v3/graphql", json=query).json()["data"]["audience"]["size"]
        assert told == load.ledger.expected_size(name)
        assert told > 0


def test_a_node_that_is_killed_under_load_and_comes_back_has_lost_nothing(tmp_path: Path, unused_port: int) -> None:
    with ServerAtPort(tmp_path, {}, unused_port) as server, log_shown(server):
        load = Load([server.url], shape=SHAPE)
        load.create_segments()
        with load.sending():
            load.wait_for_acknowledgements(200)
            server.kill()
            time.sleep(0.5)
            server.start()
            load.wait_for_acknowledgements(200)
        assert load.counts.broken > 0
        assert load.counts.gap_seconds_max > 0.5
        assert load.look() == NOTHING_WRONG


def test_an_outage_to_the_end_leaves_decisions_of_unknown_outcome_that_may_be_there_or_not(
    tmp_path: Path, unused_port: int
) -> None:
    with ServerAtPort(tmp_path, {}, unused_port) as server, log_shown(server):
        load = Load([server.url], shape=SHAPE)
        load.create_segments()
        with load.sending():
            load.wait_for_acknowledgements(200)
            server.kill()
        assert load.ledger.unknown_count > 0
        server.start()
        assert load.look() == NOTHING_WRONG
        # And one more load goes on where this one ended.
        with load.sending():
            load.wait_for_acknowledgements(200)
        assert load.look() == NOTHING_WRONG


def test_refusals_are_repeated_until_they_are_acknowledged_and_the_gap_is_measured(tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    server = ServerProcess(tmp_path, {"runtime": {"commit_queue_requests_max": 1}})
    with closing(server), log_shown(server):
        server.start({"SEGMENTD_FAILPOINT": f"slow_commit:{stall}"})
        load = Load([server.url], shape=SHAPE._replace(clients=6))
        load.create_segments()
        with load.sending():
            load.wait_for_acknowledgements(200)
            stall.touch()
            time.sleep(1.0)
            refusals = load.counts.refusals
            stall.unlink()
            load.wait_for_acknowledgements(200)
        assert refusals > 0, "nothing was refused while commits stalled"
        assert load.counts.gap_seconds_max > 0.5
        assert load.counts.refusals > 6, "what follows would hold without repeating"
        assert load.ledger.unknown_count <= 6 * SHAPE.events, "of each client the last request at most"
        assert load.look() == NOTHING_WRONG


def test_clients_go_on_at_the_next_node(server: ServerProcess, unused_port: int) -> None:
    load = Load([f"http://127.0.0.1:{unused_port}", server.url], shape=SHAPE)
    with pytest.raises(httpx.ConnectError):
        load.create_segments()
    load.urls.reverse()
    load.create_segments()
    with load.sending():
        load.wait_for_acknowledgements(200)
    assert load.counts.broken > 0
    assert load.look(server.url) == NOTHING_WRONG


def test_what_a_server_forgot_is_counted(tmp_path: Path, unused_port: int) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    with ServerAtPort(first, {}, unused_port) as server:
        load = loaded(server)
        known = [each for each in load.ledger.identifiers if "churn" not in each]
        server.kill()
    with ServerAtPort(second, {}, unused_port) as empty, log_shown(empty):
        load.create_segments()
        findings = load.look()
        assert findings.lost_count == load.counts.acknowledged
        assert {pair.identifier for pair in findings.lost} >= set(known)
        assert (findings.unexplained, findings.sizes) == ({}, {})
        # One of them is sent again, so that one less is lost.
        again = next(pair for pair in findings.lost if pair.identifier == known[0])
        send(empty, Decision(again, EPOCH_MS, qualify=True))
        assert load.look().lost_count == findings.lost_count - 1


def test_a_state_that_nobody_sent_and_a_member_of_no_decision_are_found(server: ServerProcess) -> None:
    load = loaded(server)
    pair = Pair(load.ledger.identifiers[0], load.audiences[0])
    invented = Decision(pair, EPOCH_MS + 1_000_000, qualify=False)
    send(server, invented)
    findings = load.look()
    assert (findings.lost, findings.sizes) == ({}, {})
    assert [(each, seen) for each, (seen, _) in findings.unexplained.items()] == [(pair, invented.v)]
    send(server, Decision(Pair("stranger", load.audiences[0]), EPOCH_MS, qualify=True))
    ((name, (size, members)),) = load.look().sizes.items()
    assert (name, size) == (load.audiences[0], members + 1)


def test_a_client_that_is_answered_wrongly_fails_the_test(server: ServerProcess) -> None:
    load = Load([server.url], shape=SHAPE)
    with pytest.raises(AssertionError, match="403"), load.sending(key="no such key"):
        load.wait_for_acknowledgements(1)
    with pytest.raises(AssertionError, match="403"):
        load.wait_for_acknowledgements(1)
