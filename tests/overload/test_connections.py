"""Thousands of idle connections, and clients that never read: the others are served, and room is free again after."""

import contextlib
import json
from pathlib import Path

import httpx
import pytest

from tests.overload.crowds import (
    AUDIENCE,
    SEGMENT,
    Client,
    Crowd,
    allow_descriptors,
    assert_recovered,
    descriptors,
    events,
    head,
    resident_bytes,
    show,
    wait_until,
    watching,
)
from tests.serverprocess import ServerProcess, log_shown

MIB = 1 << 20
IDLE = 5_000
IDLE_BYTES_MAX = 32_768
"""Of memory that one idle connection may take."""
SPARE_DESCRIPTORS = 1_000
READ_SECONDS_MAX = 2
READERS = 60
MEMBERS = 60_000
RECEIVE_BUFFER_BYTES = 4_096
PAGES = 10
ANSWER_BYTES_MIN = MIB // 2
ANSWERS_BYTES_MAX = 8 * MIB
SLACK_BYTES = 48 * MIB
"""Half of what the answers of all readers together take without a bound."""


@pytest.mark.parametrize("hypercorn", [False, True], ids=["lane", "hypercorn"])
def test_thousands_of_idle_connections_cost_little_and_hold_up_nobody(tmp_path: Path, hypercorn: bool) -> None:
    if not allow_descriptors(IDLE + SPARE_DESCRIPTORS):
        pytest.skip(f"this user may not have {IDLE + SPARE_DESCRIPTORS} descriptors (ulimit -Hn)")
    server = ServerProcess(tmp_path, {"server": {"lane": not hypercorn}})
    with log_shown(server), server:
        show(server)
        before = resident_bytes(server.pid)
        with Crowd() as crowd, watching(server) as seen:
            idle = crowd.join(server, IDLE)
            asked = seen.answers["query"]
            wait_until(lambda: seen.answers["query"] > asked + 20, "queries beside idle connections")
            assert all(client.is_open() for client in idle)
            grown = resident_bytes(server.pid) - before
            print(f"{IDLE} idle connections take {grown} bytes")
        assert grown < IDLE * IDLE_BYTES_MAX
        assert_recovered(server)


def test_more_connections_than_there_is_room_for_wait_and_are_served_when_others_leave(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"server": {"connections_max": 50}})
    with log_shown(server), server:
        show(server)
        with Crowd() as crowd:
            inside = crowd.join(server, 60)
            late = crowd.enter_context(Client(server))
            late.send(head("/v3/events", len(body := events(range(1, 11)))) + body)
            assert late.is_open()
            for client in inside:
                client.close()
            assert late.reply().status == 202
        assert_recovered(server)


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "hypercorn"])
def test_clients_that_never_read_their_answers_lose_the_connection_and_take_bounded_room(
    tmp_path: Path, lane: bool
) -> None:
    # Most of them are refused an export, and are idle then.
    times = {"request_read_seconds_max": READ_SECONDS_MAX, "keep_alive_seconds_max": READ_SECONDS_MAX}
    limits = {"answers_bytes_max": ANSWERS_BYTES_MAX}
    server = ServerProcess(tmp_path, {"server": {**times, "lane": lane}, "limits": limits})
    with log_shown(server), server:
        show(server)
        fill(server)
        before, before_descriptors = resident_bytes(server.pid), descriptors(server.pid)
        with Crowd() as crowd, watching(server) as seen:
            query = json.dumps({"query": large_query()})
            assert answered_bytes(server, query) > ANSWER_BYTES_MIN
            ask = head("/v3/graphql", len(query)) + query.encode()
            unread = crowd.join(server, READERS, RECEIVE_BUFFER_BYTES)
            for client in unread:
                with contextlib.suppress(OSError):
                    client.send(ask * 20)
            listing = (
                f"GET /v3/segments/{SEGMENT}/members HTTP/1.1\r\nhost: test\r\nx-api-key: {server.private_key}\r\n"
            )
            exports = crowd.join(server, READERS, RECEIVE_BUFFER_BYTES)
            for client in exports:
                client.send(f"{listing}accept: application/x-ndjson\r\n\r\n".encode())
            with server.client() as last:
                # Connections are accepted in their order.
                assert last.get("/healthz").status_code == 200
            wait_until(lambda: descriptors(server.pid) < before_descriptors + 10, "who does not read is cut off")
        grown = seen.resident_bytes_max - before
        print(f"{READERS} clients that do not read: grown by {grown} bytes")
        assert grown < 2 * ANSWERS_BYTES_MAX + SLACK_BYTES
        with server.client(server.private_key) as asking:
            wait_until(lambda: exported(asking) == MEMBERS + 1, "an export has its place again")
        assert_recovered(server)


def large_query() -> str:
    """With as many aliased pages as the cost allows."""
    page = f'audience(name: "{SEGMENT}") {{ members(first: 1000) {{ edges {{ cursor node {{ identifier }} }} }} }}'
    return f"{{ {' '.join(f'p{number}: {page}' for number in range(PAGES))} }}"


def answered_bytes(server: ServerProcess, query: str) -> int:
    """Of the answer to `query`, which must be right."""
    with server.client(server.private_key) as client:
        answer = client.post("/v3/graphql", content=query, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text[:1_000]
    assert "errors" not in answer.json(), answer.text[:1_000]
    return len(answer.content)


def fill(server: ServerProcess) -> None:
    rows = "".join(f"u-{number}\n" for number in range(MEMBERS + 1))
    with server.client(server.private_key) as client:
        path = f"/v3/audiences/{AUDIENCE}/imports"
        answer = client.post(path, content=f"fs_user_id\n{rows}", headers={"content-type": "text/csv"})
        assert answer.status_code == 202, answer.text
        job = f"/v3/imports/{answer.json()['id']}"
        wait_until(lambda: client.get(job).json()["state"] == "completed", "the import ends")


def exported(client: httpx.Client) -> int:
    answer = client.get(f"/v3/segments/{SEGMENT}/members", headers={"accept": "application/x-ndjson"})
    return len(answer.text.splitlines()) if answer.status_code == 200 else 0
