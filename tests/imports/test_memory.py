"""A file is never in the server's memory, however large it is and however slowly it is staged."""

import gzip
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.imports.test_server import WAIT_SECONDS_MAX, ended, post
from tests.serverprocess import ServerProcess, log_shown

CHUNK = b"".join(b"u-%08d\n" % number for number in range(20_000))
CHUNKS = 400
"""80 MB in all."""
UNREAD_BYTES_MAX = 24 << 20
"""What sockets, pipes and one request may hold between the client and a stager that reads nothing."""
GROWTH_BYTES_MAX = 24 << 20
STILL_SECONDS = 1.5
GIB = 1 << 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    with log_shown(server), server:
        yield server


class Body:
    """A body that counts what was taken of it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.taken = 0
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.taken += len(piece)
            yield piece


def rows() -> Iterator[bytes]:
    yield b"fs_user_id\n"
    for _ in range(CHUNKS):
        yield CHUNK


def send(client: httpx.Client, body: Body) -> httpx.Response:
    return client.post("/v3/audiences/vip/imports", content=iter(body), headers={"content-type": "text/csv"})


def resident(pid: int, name: str = "VmRSS") -> int:
    """Memory of a process in bytes. name: `VmHWM` is the most that it ever was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def stager_of(pid: int) -> int | None:
    # A child is listed with the thread that has started it.
    children = [child for thread in Path(f"/proc/{pid}/task").iterdir() for child in _text(thread / "children").split()]
    found = [int(child) for child in children if "segmentd.storage.stager" in _text(Path(f"/proc/{child}/cmdline"))]
    return found[0] if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(found: Callable[[], int | None]) -> int:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (value := found()) is None:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return value


def stand_still(body: Body) -> None:
    """Wait until nothing more is taken of a body."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    taken, since = body.taken, time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        assert time.monotonic() < deadline, "the client is never held back"
        time.sleep(0.05)
        if body.taken != taken:
            taken, since = body.taken, time.monotonic()


def test_a_client_waits_while_its_file_is_not_staged_and_nothing_piles_up(server: ServerProcess) -> None:
    body = Body(rows())
    answers: list[httpx.Response] = []
    with server.client(server.private_key) as client:
        before = resident(server.pid)
        thread = threading.Thread(target=lambda: answers.append(send(client, body)))
        thread.start()
        stager = wait_for(lambda: stager_of(server.pid))
        os.kill(stager, signal.SIGSTOP)
        try:
            stand_still(body)
            assert body.taken < UNREAD_BYTES_MAX
            assert resident(server.pid) - before < GROWTH_BYTES_MAX
            with server.client(server.private_key) as other:
                assert other.get("/v3/imports").status_code == 200, "the server is not held back"
        finally:
            os.kill(stager, signal.SIGCONT)
        thread.join()
        assert answers[0].status_code == 202, answers[0].text
        assert resident(server.pid, "VmHWM") - before < GROWTH_BYTES_MAX, "80 MB went by"
        job = ended(client, answers[0].json()["id"])
        assert (job["state"], job["rows"], job["qualified"]) == ("completed", 20_000 * CHUNKS, 20_000)


def test_a_line_of_a_gigabyte_is_refused_and_never_held(server: ServerProcess) -> None:
    def endless() -> Iterator[bytes]:
        yield b"fs_user_id\n"
        for _ in range(GIB >> 18):
            yield b"x" * (1 << 18)

    body = Body(endless())
    with server.client(server.private_key) as client:
        before = resident(server.pid)
        answer = send(client, body)
        assert answer.status_code == 400
        assert answer.json()["detail"]["line"] == 2
        assert "longer than 65536 bytes" in answer.json()["detail"]["message"]
        assert resident(server.pid, "VmHWM") - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize("line", [b"x" * (1 << 20), b'\n","' * (1 << 18)])
def test_a_gigabyte_in_a_small_gzip_is_refused_without_being_inflated(server: ServerProcess, line: bytes) -> None:
    member = gzip.compress(line)
    content = gzip.compress(b'fs_user_id\n"x"\n"y') + member * (GIB // len(line))
    with server.client(server.private_key) as client:
        before = resident(server.pid)
        answer = post(client, content)
        assert answer.status_code == 400, answer.text
        assert answer.json()["detail"]["line"] == 3
        assert client.get("/v3/imports").json()["imports"] == []
        assert resident(server.pid, "VmHWM") - before < GROWTH_BYTES_MAX
