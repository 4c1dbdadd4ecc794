"""Followers start, die, are replaced and end: nothing acknowledged is lost, and nothing is left over."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.followers.processes import (
    Connection,
    FollowedServer,
    events,
    is_alive,
    names,
    query,
    request,
    until,
)
from tests.serverprocess import log_shown

SEGMENT = request("PUT", "/v3/segments/gold", b'{"definition":{"external":{"external_audience_id":"a"}}}')


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FollowedServer]:
    with FollowedServer(tmp_path) as running, log_shown(running):
        with running.connection() as connection:
            assert connection.ask(SEGMENT).status == 201
        yield running


class Load:
    """Clients that send events and read them back on other connections, until told to stop."""

    def __init__(self, server: FollowedServer, clients: int = 4) -> None:
        self._server = server
        self._stopping = threading.Event()
        self.acknowledged: list[str] = []
        self.broken = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def _run(self, client: int) -> None:
        number = 0
        while not self._stopping.is_set():
            try:
                with self._server.connection() as writer, self._server.connection() as reader:
                    while not self._stopping.is_set():
                        self._step(writer, reader, [f"c{client}-{number}-{at}" for at in range(20)])
                        number += 1
            except OSError:
                self.broken += 1
                number += 1
                if not self._stopping.wait(0.05) and not is_alive(self._server_pid):
                    return

    @property
    def _server_pid(self) -> int:
        return self._server.pid

    def _step(self, writer: Connection, reader: Connection, identifiers: list[str]) -> None:
        if writer.ask(events(*[(identifier, "a", True) for identifier in identifiers])).status != 202:
            return
        self.acknowledged.extend(identifiers)
        for connection in (reader, writer):
            reply = connection.ask(query(identifiers[-1]))
            # A service that stops says so.
            if reply.status != 503 and names(reply) != ["gold"]:
                self.wrong.append(identifiers[-1])


def assert_all_there(server: FollowedServer, identifiers: list[str]) -> None:
    with server.to_owner() as owner, server.to_follower() as follower:
        for identifier in identifiers:
            for connection in (owner, follower):
                assert names(connection.ask(query(identifier))) == ["gold"], identifier


def test_a_killed_follower_is_started_again_and_costs_only_its_connections(server: FollowedServer) -> None:
    with Load(server).running() as load:
        for kills in range(1, 4):
            acknowledged = len(load.acknowledged)
            until(lambda: len(load.acknowledged) > acknowledged + 200)  # noqa: B023  # called before the next turn
            os.kill(server.follower_pid, signal.SIGKILL)
            until(lambda: len(server.follower_pids()) == kills + 1, server.log_text)  # noqa: B023
    assert load.wrong == []
    assert server.metrics()["segmentd_follower_restarts_total"] == 3
    assert len(server.live_followers()) == 1
    assert_all_there(server, load.acknowledged[-500:])


def test_a_follower_that_is_killed_takes_no_connection_with_it_that_was_not_its_own(server: FollowedServer) -> None:
    with server.to_owner() as owner, server.to_follower() as follower:
        os.kill(server.follower_pid, signal.SIGKILL)
        assert names(owner.ask(query("nobody"))) == []
        with pytest.raises(ConnectionError):
            follower.ask(query("nobody"))
    server.wait_followers()
    assert server.metrics()["segmentd_follower_connections_lost_total"] >= 1


def test_connections_that_wait_to_be_accepted_outlive_a_follower(server: FollowedServer) -> None:
    victim = server.follower_pid
    os.kill(server.pid, signal.SIGSTOP)
    os.kill(victim, signal.SIGSTOP)
    waiting = [server.connection() for _ in range(20)]
    for connection in waiting:
        connection.send(query("nobody"))
    os.kill(victim, signal.SIGKILL)
    os.kill(server.pid, signal.SIGCONT)
    for connection in waiting:
        with connection:
            assert names(connection.reply()) == []


def test_a_killed_owner_takes_its_followers_with_it_and_loses_nothing_acknowledged(server: FollowedServer) -> None:
    follower = server.follower_pid
    with Load(server).running() as load:
        until(lambda: len(load.acknowledged) > 500)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not is_alive(follower))
    assert load.wrong == []
    server.wait()
    server.start()
    assert_all_there(server, load.acknowledged[-500:])


def test_an_owner_starts_again_at_once_on_the_port_that_a_follower_still_has(tmp_path: Path) -> None:
    with FollowedServer(tmp_path) as server:
        port = server.port
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        server.start({"SEGMENTD_SERVER_LISTEN": f"127.0.0.1:{port}"})
        with server.connection() as connection:
            assert names(connection.ask(query("nobody"))) == []


def test_sigterm_ends_all_processes_in_order_and_idle_connections_at_once(server: FollowedServer) -> None:
    follower = server.follower_pid
    with server.to_owner() as owner, server.to_follower() as followed:
        server.terminate()
        assert not is_alive(follower)
        for connection in (owner, followed):
            assert connection.socket.recv(100) == b""
    assert "connections_lost=0" in server.log_text()


def test_sigterm_under_load_answers_or_closes_and_loses_nothing(server: FollowedServer) -> None:
    follower = server.follower_pid
    with Load(server).running() as load:
        until(lambda: len(load.acknowledged) > 500)
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
    assert load.wrong == []
    assert not is_alive(follower)
    server.start()
    assert_all_there(server, load.acknowledged[-500:])


def test_sigterm_to_the_whole_group_is_the_owners_to_carry_out(server: FollowedServer) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(server.follower_pid, number)
    with server.to_follower() as connection:
        assert names(connection.ask(query("nobody"))) == []
    server.terminate()


def test_sighup_replaces_followers_and_no_client_notices(server: FollowedServer) -> None:
    with Load(server).running() as load, server.to_follower() as idle:
        for restarts in range(1, 3):
            before = server.follower_pid
            os.kill(server.pid, signal.SIGHUP)
            until(lambda: len(server.follower_pids()) == restarts + 1, server.log_text)  # noqa: B023
            until(lambda: not is_alive(before), server.log_text)  # noqa: B023
            assert names(idle.ask(query("nobody"))) == []
    assert (load.broken, load.wrong) == (0, [])
    metrics = server.metrics()
    assert metrics["segmentd_follower_restarts_total"] == 0
    assert metrics["segmentd_follower_connections_lost_total"] == 0


def test_what_was_forgotten_is_in_no_file_that_a_follower_has_open(tmp_path: Path) -> None:
    with FollowedServer(tmp_path, {"compliance": {"scrub_seconds_min": 0.1}}) as server, log_shown(server):
        with server.to_owner() as owner, server.to_follower() as follower:
            assert owner.ask(SEGMENT).status == 201
            assert owner.ask(events(("forgotten", "a", True), ("kept", "a", True))).status == 202
            assert names(follower.ask(query("forgotten"))) == ["gold"]
        with server.client(server.private_key) as client:
            asked = client.post("/v3/compliance/gdpr/delete", json=[{"fs_user_id": "forgotten"}])
            assert asked.status_code == 202, asked.text
            status = f"/v3/compliance/gdpr/status/{asked.json()['request_id']}"
            until(lambda: client.get(status).json()["status"] == "COMPLETED", server.log_text)
        maps = Path(f"/proc/{server.follower_pid}/maps").read_text()
        assert [line for line in maps.splitlines() if "data.mdb" in line and "deleted" in line] == []
        with server.to_follower() as follower:
            assert names(follower.ask(query("forgotten"))) == []
            assert names(follower.ask(query("kept"))) == ["gold"]
        assert server.metrics()["segmentd_follower_restarts_total"] == 0


def test_a_follower_that_keeps_replaced_files_is_killed_before_forgetting_is_done(tmp_path: Path) -> None:
    with FollowedServer(tmp_path, {"compliance": {"scrub_seconds_min": 0.1}}) as server, log_shown(server):
        stuck = server.follower_pid
        os.kill(stuck, signal.SIGSTOP)
        with httpx.Client(base_url=server.url, headers={"x-api-key": server.private_key}, timeout=60) as client:
            asked = client.post("/v3/compliance/gdpr/delete", json=[{"fs_user_id": "forgotten"}])
            status = f"/v3/compliance/gdpr/status/{asked.json()['request_id']}"
            until(lambda: client.get(status).json()["status"] == "COMPLETED", server.log_text)
        assert not is_alive(stuck)
        server.wait_followers()


def test_metrics_add_up_what_all_processes_have_counted(server: FollowedServer) -> None:
    name = 'segmentd_http_request_seconds_count{method="POST",route="/v3/graphql",status="200"}'
    before = server.metrics().get(name, 0)
    with server.to_owner() as owner, server.to_follower() as follower:
        for _ in range(10):
            owner.ask(query("nobody"))
            follower.ask(query("nobody"))
    until(lambda: server.metrics().get(name, 0) >= before + 21)
    assert server.metrics()[name] == before + 21
    os.kill(server.follower_pid, signal.SIGTERM)
    metrics = server.metrics()
    assert metrics['process_resident_memory_bytes{process="follower-0"}'] > 0
    assert metrics['process_resident_memory_bytes{process="owner"}'] > 0
    assert metrics["segmentd_followers_ready"] == metrics["segmentd_followers_wanted"] == 1
