"""A server with a follower answers generated conversations as one without followers does, wherever they begin."""

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.followers.processes import PATIENCE_SECONDS, Connection, FollowedServer, paused, query, request
from tests.http.traffic import Reply, conversation, replies
from tests.serverprocess import ServerProcess, key_settings, log_shown

CONVERSATIONS = 400
TOGETHER = 40
NEVER_WHOLE = b"content-length: 99999999\r\n"
TIME = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")
SEGMENT = request("PUT", "/v3/segments/gold", b'{"definition":{"external":{"external_audience_id":"audience_1"}}}')
SECTIONS: dict[str, dict[str, Any]] = {
    "keys.web": key_settings("test-public", "public"),
    "keys.ops": key_settings("test-private", "private"),
    "rates": {"wrong_keys_per_minute": 0},
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FollowedServer, ServerProcess]]:
    with (
        FollowedServer(tmp_path_factory.mktemp("followed"), SECTIONS) as followed,
        ServerProcess(tmp_path_factory.mktemp("alone"), SECTIONS) as alone,
        log_shown(followed),
    ):
        for port in (followed.port, port_of(alone)):
            with Connection(port) as connection:
                assert connection.ask(SEGMENT).status == 201
        yield followed, alone


def port_of(server: ServerProcess) -> int:
    return int(server.url.rpartition(":")[2])


def said_on(connection: socket.socket, sent: bytes) -> list[Reply]:
    """All answers to `sent`, after which the client closes its sending side."""
    received = b""
    with connection:
        # The server may refuse and close before all is sent; what it said can still be read.
        with contextlib.suppress(OSError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65_536):
                received += part
    return [Reply(reply.status, reply.headers, TIME.sub(b"", reply.body)) for reply in replies(received)]


def alike(some: list[Reply], others: list[Reply], sent: bytes) -> bool:
    """Whether they are the same. Who leaves before a body is whole may be gone before the refusal of it is written."""
    if some == others:
        return True
    shorter, longer = sorted((some, others), key=len)
    return NEVER_WHOLE in sent and longer[:-1] == shorter and longer[-1].status == 413


def accepted_by_the_follower(server: FollowedServer, count: int) -> list[socket.socket]:
    """Connections that the follower has accepted."""
    with paused(server.pid):
        made = [socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) for _ in range(count)]
        with server.connection() as last:
            # They are accepted in their order.
            assert last.ask(query("nobody")).status == 200
    return made


def test_conversations_that_begin_with_a_follower_get_the_same_answers(
    servers: tuple[FollowedServer, ServerProcess],
) -> None:
    followed, alone = servers
    for first in range(0, CONVERSATIONS, TOGETHER):
        connections = accepted_by_the_follower(followed, TOGETHER)
        for number, connection in enumerate(connections, first):
            sent = conversation(number)
            expected = said_on(socket.create_connection(("127.0.0.1", port_of(alone)), PATIENCE_SECONDS), sent)
            assert alike(said_on(connection, sent), expected, sent), (number, sent[:2_000], expected)
    metrics = followed.metrics()
    assert metrics['segmentd_connections_handed_over_total{to="owner"}'] > CONVERSATIONS / 10
    assert metrics["segmentd_follower_restarts_total"] == 0


def test_conversations_leave_the_same_state(servers: tuple[FollowedServer, ServerProcess]) -> None:
    followed, alone = servers
    shown = []
    for port in (followed.port, port_of(alone)):
        with Connection(port) as connection:
            shown.append([connection.ask(query(f"u-{number}")).json for number in range(5)])
    assert shown[0] == shown[1]
