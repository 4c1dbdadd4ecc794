"""A server that may open no more files: whoever is connected is answered, nobody makes it spin, and it recovers."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from segmentd import keyfile
from tests.overload.crowds import assert_recovered, descriptors, events, show, size, wait_until
from tests.serverprocess import Sections, ServerProcess, log_shown

SPARE = 12
SPIN_SECONDS = 2.0
BUSY_SHARE_MAX = 0.5
"""Of a core; accepting again and again would take all of it."""
REASONS_MAX = 40
"""Lines about it in `SPIN_SECONDS`."""


@contextmanager
def nothing_left(server: ServerProcess) -> Iterator[None]:
    """As many connections as there are descriptors, and more in the backlog."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
    count = descriptors(server.pid) + SPARE
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (count, hard))
    with ExitStack() as stack:
        for _ in range(2 * SPARE):
            stack.enter_context(socket.create_connection((host, int(port))))
        wait_until(lambda: descriptors(server.pid) >= count, "all descriptors are taken")
        yield


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize(
    ("lane", "followers"), [(True, 0), (False, 0), (True, 1)], ids=["lane", "hypercorn", "follower"]
)
def test_a_server_without_descriptors_answers_who_is_connected_and_recovers(
    tmp_path: Path, lane: bool, followers: int
) -> None:
    sections: Sections = {"server": {"lane": lane, "followers": followers}, "storage": {"checkpoint_seconds_max": 0.1}}
    with ServerProcess(tmp_path, sections) as server, log_shown(server):
        with server.client(server.private_key) as connected:
            show(server)
            assert size(connected) == 1
            with nothing_left(server):
                first_line, before = len(server.log), processor_seconds(server.pid)
                time.sleep(SPIN_SECONDS)
                assert processor_seconds(server.pid) - before < BUSY_SHARE_MAX * SPIN_SECONDS
                assert len(server.log) - first_line < REASONS_MAX, "the log is not filled"
                assert any("Too many open files" in line for line in server.log), "the log says why"
                for number in range(1, 4):
                    body = events(range(number))
                    assert connected.post("/v3/events", content=body).status_code == 202
                    assert size(connected) == number
                assert connected.get("/healthz").status_code == 200
                assert connected.get("/metrics").status_code == 200
                assert connected.get("/v3/status").status_code in {200, 503}
            assert_recovered(server)
        server.terminate()
        assert server.check().returncode == 0


def test_what_cannot_be_opened_without_descriptors_is_refused_and_can_be_asked_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, log_shown(server), ExitStack() as stack:
        show(server)
        asks = [
            ("POST", "/v3/audiences/list/imports", b"fs_user_id\nada\n", {"content-type": "text/csv"}),
            ("POST", "/v3/compliance/gdpr/delete", b'[{"fs_user_id":"nobody"}]', {"content-type": "application/json"}),
            ("GET", "/v3/segments/crowd/members?format=csv", b"", {}),
        ]
        # One connection each, because a refused body may end its connection.
        clients = [stack.enter_context(server.client(server.private_key)) for _ in asks]
        assert [size(client) for client in clients] == [1] * len(asks)
        with nothing_left(server):
            for client, (method, path, body, headers) in zip(clients, asks, strict=True):
                answer = client.request(method, path, content=body, headers=headers)
                assert answer.status_code == 503, (path, answer.status_code, answer.text)
                assert int(answer.headers["retry-after"]) > 0
        with server.client(server.private_key) as client:
            for method, path, body, headers in asks:
                ask = partial(client.request, method, path, content=body, headers=headers)
                wait_until(lambda ask=ask: ask().status_code in {200, 202}, f"{path} is taken")  # type: ignore[misc]
        server.terminate()


def test_keys_that_change_meanwhile_are_read_when_there_are_descriptors_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, log_shown(server):
        path = keyfile.path_in(server.data)
        kept, secret = keyfile.create(path, "private")
        with server.client(secret) as client:
            wait_until(lambda: client.get("/v3/segments").status_code == 200, "the key is in force")
            with nothing_left(server):
                keyfile.revoke(path, kept)
                wait_until(lambda: any("key file not read" in line for line in server.log), "it is tried to be read")
                assert client.get("/v3/segments").status_code == 200, "the former keys stay in force"
            wait_until(lambda: client.get("/v3/segments").status_code == 403, "the revoked key is refused")
        server.terminate()
