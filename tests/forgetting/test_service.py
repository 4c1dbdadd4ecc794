"""Requests to forget, at a real server: gone at once, gone for good, killed or not."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.members.service import TS, event, members, segment, send, wait_until
from tests.serverprocess import ServerProcess

NAME = "somebody-who-wants-to-be-forgotten@example.com"
SECTIONS = {"compliance": {"scrub_seconds_min": 0.05}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, SECTIONS)
    yield server
    server.close()


def traces(server: ServerProcess) -> list[str]:
    """Every file of the data folder with the identifier in its bytes."""
    found = []
    for path in server.data.rglob("*"):
        try:
            if path.is_file() and NAME.encode() in path.read_bytes():
                found.append(path.name)
        except FileNotFoundError:
            continue  # a scrub has just removed it
    return found


def fill(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", ("email", NAME, TS))])
    send(client, [event("red", ("fs_user_id", f"u-{number}", TS)) for number in range(100)])
    assert len(members(client, "s")) == 101


def ended(client: httpx.Client, request_id: str, law: str = "gdpr") -> Any:
    return wait_until(lambda: client.get(f"/v3/compliance/{law}/status/{request_id}").json()["status"] == "COMPLETED")


@pytest.mark.parametrize("law", ["gdpr", "ccpa", "lgpd"])
def test_a_forgotten_identifier_leaves_no_trace_and_does_not_come_back(server: ServerProcess, law: str) -> None:
    server.start()
    with server.client(server.private_key) as client:
        fill(client)
        assert traces(server), "the test shows nothing: it never was on disk"
        answer = client.post(f"/v3/compliance/{law}/delete", json=[{"email": NAME.upper()}, {"vuid": "v"}])
        assert answer.status_code == 202, answer.text
        assert len(members(client, "s")) == 100
        send(client, [event("red", ("email", NAME, TS + 1))])
        assert len(members(client, "s")) == 100
        ended(client, answer.json()["request_id"], law)
        status = client.get(f"/v3/compliance/{law}/status/{answer.json()['request_id']}").json()
        assert status["reason"] is None
        assert status["completed_at"] >= status["received_at"]
        assert traces(server) == []
        assert len(members(client, "s")) == 100
        send(client, [event("red", ("email", NAME, int(time.time()) + 5))])
        assert len(members(client, "s")) == 101
        server.terminate()
    assert server.check().returncode == 0


def test_a_scrub_that_is_killed_begins_again(server: ServerProcess) -> None:
    server.start({"SEGMENTD_FAILPOINT": "scrubbing"})
    with server.client(server.private_key) as client:
        fill(client)
        request_id = client.post("/v3/compliance/gdpr/delete", json=[{"email": NAME}]).json()["request_id"]
    assert server.wait() == -9
    server.start({})
    with server.client(server.private_key) as client:
        assert len(members(client, "s")) == 100
        ended(client, request_id)
        assert traces(server) == []
        server.terminate()
    assert server.check().returncode == 0
    assert len([path for path in server.data.iterdir() if path.name.startswith(("index", "journal"))]) == 2


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([], "0 identifiers"),
        ([{}], "0 identifiers"),
        ([{"fs_user_id": "u"}, {}], "[1]"),
        ([{"nickname": "u"}], "[0]"),
        ([{"fs_user_id": ""}], "[0].fs_user_id"),
        ([{"fs_user_id": 7}], "list of objects"),
        ({"fs_user_id": "u"}, "list of objects"),
        ([{"fs_user_id": str(number)} for number in range(1_001)], "1001 identifiers"),
    ],
)
def test_a_request_that_cannot_be_read_forgets_nobody(server: ServerProcess, body: Any, place: str) -> None:
    server.start()
    with server.client(server.private_key) as client:
        answer = client.post("/v3/compliance/gdpr/delete", json=body)
        assert answer.status_code == 400
        assert place in answer.json()["message"]
        assert client.post("/v3/compliance/hipaa/delete", json=[{"fs_user_id": "u"}]).status_code == 404
        assert client.get("/v3/compliance/gdpr/status/nothing").status_code == 404
    with server.client(server.public_key) as public:
        assert public.post("/v3/compliance/gdpr/delete", json=[{"fs_user_id": "u"}]).status_code == 403
