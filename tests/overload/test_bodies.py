"""Many bodies at a time take a bounded room, and whoever is one too many is told so; slow senders lose their turn."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.overload.crowds import (
    Client,
    Crowd,
    assert_recovered,
    events,
    head,
    resident_bytes,
    show,
    size,
    watching,
)
from tests.serverprocess import ServerProcess, log_shown

MIB = 1 << 20
BODIES_BYTES_MAX = 24 * MIB
SLACK_BYTES = 48 * MIB
CONNECTION_BYTES_MAX = 262_144
"""What one connection may take beside the bodies: what is read at a time, and what Hypercorn's road buffers."""
READ_SECONDS_MAX = 1
EVENTS = 200


def sent_but_for_the_end(client: Client, body: bytes, *, chunked: bool) -> None:
    if chunked:
        client.send(head("/v3/events", None) + f"{len(body):x}\r\n".encode() + body[:-1])
    else:
        client.send(head("/v3/events", len(body)) + body[:-1])


@pytest.mark.parametrize("chunked", [False, True], ids=["lane", "hypercorn"])
@pytest.mark.parametrize("crowd_size", [300, pytest.param(1_000, marks=pytest.mark.soak)])
def test_large_bodies_at_once_take_a_bounded_room(tmp_path: Path, chunked: bool, crowd_size: int) -> None:
    # A gigabyte may take a busy machine longer than a body may take; that is another test's.
    patient = {"request_read_seconds_max": 600}
    server = ServerProcess(tmp_path, {"limits": {"bodies_bytes_max": BODIES_BYTES_MAX}, "server": patient})
    body = events(range(EVENTS), padding_bytes=900_000)
    with log_shown(server), server, Crowd() as crowd, ThreadPoolExecutor(8) as pool:
        show(server)
        before = resident_bytes(server.pid)
        with watching(server) as seen:
            clients = crowd.join(server, crowd_size)
            list(pool.map(lambda client: sent_but_for_the_end(client, body, chunked=chunked), clients))
            ends = body[-1:] + b"\r\n0\r\n\r\n" if chunked else body[-1:]
            replies = list(pool.map(lambda client: (client.send(ends), client.reply())[1], clients))
        refused = [reply for reply in replies if reply.status == 503]
        assert {reply.status for reply in replies} == {202, 503}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)
        assert len(replies) - len(refused) >= BODIES_BYTES_MAX // len(body) - 1
        grown = seen.resident_bytes_max - before
        print(f"{crowd_size} bodies of {len(body)} bytes: {len(refused)} refused, grown by {grown} bytes")
        assert grown < 2 * BODIES_BYTES_MAX + crowd_size * CONNECTION_BYTES_MAX + SLACK_BYTES
        with server.client(server.private_key) as client:
            assert size(client) == EVENTS
        assert_recovered(server)


def test_what_a_crowd_has_held_is_free_when_it_has_left(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"limits": {"bodies_bytes_max": MIB}})
    body = events(range(EVENTS), padding_bytes=900_000)
    with log_shown(server), server:
        show(server)
        for _ in range(3):
            for chunked in (False, True):
                with Crowd() as crowd:
                    for client in crowd.join(server, 4):
                        sent_but_for_the_end(client, body, chunked=chunked)
            assert_recovered(server)
        with Client(server) as client:
            client.send(head("/v3/events", len(body)) + body)
            assert client.reply().status == 202


def test_who_sends_a_byte_at_a_time_loses_the_connection_and_takes_nothing_from_others(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"server": {"request_read_seconds_max": READ_SECONDS_MAX}})
    body = events(range(EVENTS))
    with log_shown(server), server, Crowd() as crowd:
        show(server)
        with watching(server):
            for path in ("/v3/events", "/v3/graphql"):
                slow = crowd.join(server, 100)
                for client in slow:
                    client.send(head(path, len(body)))
                still = list(slow)
                for start in range(len(body)):
                    still = [client for client in still if client.is_open() and client.send(body[start : start + 1])]
                    if not still:
                        break
                assert not still, "a body was taken a byte at a time for longer than its time"
                assert {client.reply().status for client in slow} <= {408, 0}
        with server.client(server.private_key) as asking:
            assert size(asking) == 1
        assert_recovered(server)
