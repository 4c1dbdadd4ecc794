"""A log that nobody takes: its disk full, its reader gone or asleep, or no place for it at all. The service goes on.

`bash` puts the server's streams where the test wants them, and becomes the server.
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serverprocess import ROOT, STOP_SECONDS_MAX, ServerProcess

ANSWERED_SECONDS_MAX = 20.0
LINES = 100
"""Each request makes one; together more than the pipe holds."""
PIPE_BYTES = 4_096
SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


class Redirected(ServerProcess):
    """A server whose streams are elsewhere."""

    def __init__(self, folder: Path, where: str) -> None:
        """where: redirections in the language of the shell."""
        super().__init__(folder, {"log": {"level": "debug"}, "storage": {"checkpoint_seconds_max": 0.1}})
        self._where = where

    def command(self, name: str, *arguments: str) -> list[str]:
        """See ServerProcess."""
        command = super().command(name, *arguments)
        return ["bash", "-c", f'exec "$@" {self._where}', "bash", *command] if name == "serve" else command


@pytest.fixture(autouse=True)
def _shell() -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not here to redirect the server's streams")


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[Path]:
    """A pipe that is open and that nobody reads."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(held, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield pipe
    os.close(held)


def events(number: int) -> list[dict[str, object]]:
    return [
        {
            "type": "passthrough",
            "action": "qualify",
            "identifiers": {"fs_user_id": f"u-{number}"},
            "data": {"audience_id": "vip"},
        }
    ]


def size(client: httpx.Client) -> int:
    query = '{ audience(name: "vip") { size } }'
    count: int = client.post("/v3/graphql", json={"query": query}).json()["data"]["audience"]["size"]
    return count


def assert_serves(server: ServerProcess, requests: int) -> None:
    """Events, refusals and queries are answered although each of them has something to say in the log."""
    definition = {"definition": {"external": {"external_audience_id": "vip"}}}
    with server.client(server.private_key) as client:
        client.timeout = httpx.Timeout(ANSWERED_SECONDS_MAX)
        assert client.put("/v3/segments/vip", json=definition).status_code == 201
        for number in range(requests):
            assert client.post("/v3/events", json=events(number)).status_code == 202
        assert client.post("/v3/events", content=b"{").status_code == 400
        assert client.get("/nowhere").status_code == 404
        assert size(client) == requests
        assert client.get("/readyz").status_code == 200


def lost_lines(server: ServerProcess) -> float:
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("segmentd_log_lines_lost_total"))


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(exec true)"], ids=["full disk", "reader gone"])
def test_a_log_that_cannot_be_written_takes_nothing_down(tmp_path: Path, where: str, form: str) -> None:
    server = Redirected(tmp_path, where)
    server.config.write_text(server.config.read_text().replace('format = "human"', f'format = "{form}"'))
    with server:
        assert_serves(server, 20)
        assert lost_lines(server) > 20
        server.terminate()
    assert server.check().returncode == 0


def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path, unread: Path) -> None:
    with Redirected(tmp_path, f"2>{unread}") as server:
        assert_serves(server, LINES)
        assert lost_lines(server) > 0
        server.terminate()


def test_a_reader_that_comes_back_is_told_how_many_lines_are_lost(tmp_path: Path, unread: Path) -> None:
    with Redirected(tmp_path, f"2>{unread}") as server:
        assert_serves(server, LINES)
        lost = lost_lines(server)
        reader = os.open(unread, os.O_RDONLY | os.O_NONBLOCK)
        read = _drained(reader)
        with server.client(server.private_key) as client:
            assert client.post("/v3/events", content=b"{").status_code == 400
        told = _drained(reader)
        os.close(reader)
        server.terminate()
    assert b"lines_lost" not in read
    first, *_ = told.splitlines()
    assert f"lines_lost={int(lost)}".encode() in first or f"lines_lost={int(lost) + 1}".encode() in first
    assert all(line.startswith(b"20") for line in (read + told).splitlines()), "no line is cut or run into another"


def _drained(reader: int) -> bytes:
    read, deadline = b"", time.monotonic() + 1.0
    while time.monotonic() < deadline:
        try:
            read += os.read(reader, 65_536)
        except BlockingIOError:
            time.sleep(0.02)
    return read


@pytest.mark.parametrize("where", ["1>/dev/full", "1> >(exec true)"], ids=["full disk", "reader gone"])
def test_a_start_line_that_cannot_be_written_is_no_reason_to_end(tmp_path: Path, where: str) -> None:
    # With nothing on stdout the address is in the log.
    server = Redirected(tmp_path, f"2>{tmp_path / 'log'} {where}")
    process = _started(server)
    try:
        url = _address(tmp_path / "log")
        with httpx.Client(base_url=url, headers={"x-api-key": server.private_key}) as client:
            assert client.post("/v3/events", json=events(1)).status_code == 202
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS_MAX) == 0


def test_closed_streams_never_become_files_of_the_store(tmp_path: Path) -> None:
    server = Redirected(tmp_path, "0<&- 1>&- 2>&-")
    process = _started(server)
    try:
        _wait_for_signals(process)
        assert (server.data / "journal" / "data.mdb").exists()
        for number in range(3):
            assert stat.S_ISCHR(Path(f"/proc/{process.pid}/fd/{number}").stat().st_mode), number
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS_MAX) == 0
    assert server.check().returncode == 0


def _started(server: ServerProcess) -> subprocess.Popen[bytes]:
    return subprocess.Popen(server.command("serve", "--listen", "127.0.0.1:0"), cwd=ROOT)


def _wait_for_signals(process: subprocess.Popen[bytes]) -> None:
    """Until it would end in order, which is when the store is open."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while not int(_status(process.pid)["SigCgt"], 16) & SIGTERM_BIT:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def _address(log: Path) -> str:
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while True:
        found = [word for word in log.read_text().split() if word.startswith("http://")] if log.exists() else []
        if found and "recovered" in log.read_text():
            return found[0].strip("'")
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
