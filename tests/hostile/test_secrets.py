"""A scenario with marked secrets: no output of any kind repeats one, and nothing that a client says forges a log."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import structlog
import trio

from segmentd import logs
from tests.hostile.access import NEEDS
from tests.hostile.test_access import concrete
from tests.serverprocess import PRIVATE_KEY, PUBLIC_KEY, ROOT, ServerProcess

WRONG_KEY = "marked-wrong-key"
PERSON = "marked-person"
SECRETS = (PUBLIC_KEY, PRIVATE_KEY, WRONG_KEY)
FORGED = "forged-line"
EVENT = {
    "type": "passthrough",
    "action": "qualify",
    "identifiers": {"fs_user_id": PERSON},
    "data": {"audience_id": "vip"},
}


@pytest.fixture(params=["json", "human"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Everything is logged that can be."""
    with ServerProcess(tmp_path, {"log": {"format": request.param, "level": "debug"}}) as running:
        yield running
        running.terminate()


def scenario(server: ServerProcess) -> list[httpx.Response]:
    """Every operation with every kind of key, some with bodies that have a secret in the wrong place."""
    answers = []
    bodies = (b"[]", json.dumps(EVENT).encode(), json.dumps({"query": PRIVATE_KEY, PUBLIC_KEY: WRONG_KEY}).encode())
    for key in (*SECRETS, None):
        with server.client(key) as client:
            for template, operations in NEEDS.items():
                for method in operations:
                    answers += [client.request(method, concrete(template), content=body) for body in bodies]
                answers.append(client.patch(concrete(template), headers={"authorization": f"Bearer {PRIVATE_KEY}"}))
            answers.append(client.get("/v3/graphql", params={"query": "{__typename}", "x-api-key": PRIVATE_KEY}))
            answers.append(client.get("/healthz", headers={"x-request-id": "a b", "traceparent": "00-x"}))
    return answers


def keys(server: ServerProcess, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`segmentd keys NAME` on the server's folder."""
    command = [
        sys.executable,
        "-m",
        "segmentd",
        "keys",
        name,
        "--config",
        str(server.config),
        "--data",
        str(server.data),
    ]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)


def test_no_output_repeats_a_secret_and_neither_log_nor_metrics_name_a_person(server: ServerProcess) -> None:
    made = keys(server, "create", "--right", "private", "--id", "made")
    secret = made.stdout.strip()
    assert len(secret) >= 22
    with server.client(secret) as client:
        answers = [*scenario(server), client.get("/v3/segments"), client.get("/metrics")]
    listed = keys(server, "list").stdout
    stored = b"".join(path.read_bytes() for path in server.data.rglob("*") if path.is_file())
    log, metrics = server.log_text(), answers[-1].text
    for mark in (*SECRETS, secret):
        # A query that is no GraphQL may be quoted to the one who sent it; nobody else sees it.
        shown = [answer for answer in answers if mark in f"{answer.headers}" or mark in answer.text]
        assert [answer.request.url.path for answer in shown if "Syntax Error" not in answer.text] == []
        assert mark.encode() not in stored
        assert mark not in log + metrics + listed + made.stderr
    assert PERSON not in log + metrics
    assert "v3/events" in log, "the scenario was logged"


async def _say(port: int, path: bytes) -> None:
    """One HTTP/2 request whose path has whatever HTTP/2 allows and HTTP/1.1 does not."""
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    head = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"x")]
    connection.send_headers(1, head, end_stream=True)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(connection.data_to_send())
        with trio.move_on_after(10):
            while received := await stream.receive_some():
                events = connection.receive_data(bytes(received))
                if any(isinstance(event, h2.events.ResponseReceived) for event in events):
                    return


def test_what_a_client_says_begins_no_line_and_moves_no_cursor(server: ServerProcess) -> None:
    nasty = f"%0A{FORGED}%1b[2J%0d%00%e2%80%a8"
    with server.client(PUBLIC_KEY) as client:
        for path in (f"/v3/{nasty}", f"/v3/segments/{nasty}"):
            client.get(path, headers={b"x-request-id": f"a\t{FORGED}".encode(), b"traceparent": b"00-\x9b31m"})
            client.request("NASTY", path)
    trio.run(_say, int(server.url.rpartition(":")[2]), f"/\x1b[2J{FORGED}\x9b".encode("latin-1"))
    server.terminate()
    lines = [line for line in server.log if FORGED in line]
    assert lines, "it was logged"
    assert not [line for line in server.log if line.startswith(FORGED)]
    assert [line for line in server.log if not line.replace("\t", " ").isprintable()] == []
    server.start()


@pytest.mark.parametrize("form", ["json", "human"])
def test_every_value_of_a_log_line_stays_on_its_line(form: Literal["json", "human"]) -> None:
    stream = io.StringIO()
    before = structlog.get_config()
    try:
        logs.configure(form, "debug", stream)
        log = structlog.get_logger("test")
        log.info("event\x1b[2J\nforged", path="/a\r\nforged", listed=["\nforged"], line="\u2028forged")
        log.error("failed", path="\x9bforged", exc_info=ValueError("\x1b[2J\rforged"))
    finally:
        structlog.configure(**before)
    written = stream.getvalue()
    assert written.replace("\n", "").isprintable()
    assert not any(line.startswith("forged") for line in written.splitlines())
