"""A server tells the supervisor that started it (systemd, or whoever speaks its protocol) how it is."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from segmentd.supervisor import Supervisor
from tests.serverprocess import ServerProcess, log_shown

# Turns a hang into a failure.
PATIENCE_SECONDS = 60.0


class Ear:
    """The supervisor's end: a datagram socket that messages arrive at."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(PATIENCE_SECONDS)

    def next(self, wanted: Callable[[str], bool] = lambda _: True) -> str:
        """The next message that is wanted; raises TimeoutError if none comes."""
        while True:
            message = self.socket.recv(4096).decode()
            if wanted(message):
                return message

    def all(self) -> list[str]:
        """What has arrived by now."""
        self.socket.setblocking(False)
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify"))
    yield ear
    ear.socket.close()


def is_no_watchdog(message: str) -> bool:
    return message != "WATCHDOG=1"


@pytest.mark.parametrize("followers", [0, 1])
def test_a_server_says_ready_alive_reloading_and_stopping(ear: Ear, tmp_path: Path, followers: int) -> None:
    server = ServerProcess(tmp_path, {"server": {"followers": followers}})
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with log_shown(server):
        try:
            server.start(environ)
            first = ear.next()
            while first != "READY=1":  # alive comes before ready, and nothing else does but why it is not
                assert first == "WATCHDOG=1" or first.startswith("STATUS=The service is starting")
                first = ear.next()
            assert httpx.get(server.url + "/readyz").status_code == 200
            assert ear.next(is_no_watchdog) == "STATUS=Ready."
            for _ in range(3):
                assert ear.next() == "WATCHDOG=1"
            os.kill(server.pid, signal.SIGHUP)
            reloading, _, time_line = ear.next(is_no_watchdog).partition("\n")
            assert (reloading, time_line.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
            assert ear.next(is_no_watchdog) == "READY=1"
            assert httpx.get(server.url + "/readyz").status_code == 200
            server.terminate()
            assert ear.next(is_no_watchdog) == "STOPPING=1"
        finally:
            server.close()


def test_a_supervisor_that_is_gone_is_logged_and_keeps_nobody_from_serving(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert httpx.get(server.url + "/readyz").status_code == 200
    server.terminate()
    assert "the supervisor could not be told" in server.log_text()


async def test_the_watchdog_is_fed_at_least_twice_in_its_time(ear: Ear, autojump_clock: MockClock) -> None:
    name = ear.socket.getsockname()
    supervisor = Supervisor({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    reasons = iter(["The service is starting."])
    with trio.move_on_after(0.1):
        await supervisor.run(lambda: next(reasons, None))
    assert ear.all() == ["STATUS=The service is starting.", "WATCHDOG=1"]
    with trio.move_on_after(4):
        await supervisor.run(lambda: None)
    messages = ear.all()
    assert messages[:2] == ["READY=1", "STATUS=Ready."]
    assert messages.count("READY=1") == 1
    assert messages.count("WATCHDOG=1") >= 2 * 4 / 3


async def test_the_watchdog_of_another_process_is_not_fed(ear: Ear, autojump_clock: MockClock) -> None:
    name = ear.socket.getsockname()
    with trio.move_on_after(10):
        await Supervisor({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).run(lambda: None)
    assert ear.all() == ["READY=1", "STATUS=Ready."]


async def test_an_abstract_address_is_understood(autojump_clock: MockClock) -> None:
    name = f"segmentd-test-{os.getpid()}"
    ear = Ear(f"\0{name}")
    Supervisor({"NOTIFY_SOCKET": f"@{name}"}).stopping()
    assert ear.all() == ["STOPPING=1"]
    ear.socket.close()


async def test_a_reload_before_the_service_is_ready_does_not_call_it_ready(ear: Ear) -> None:
    done = trio.Event()

    async def restart() -> None:
        done.set()
        await trio.lowlevel.checkpoint()

    await Supervisor({"NOTIFY_SOCKET": ear.socket.getsockname()}).reload(restart)
    assert done.is_set()
    assert ear.all() == []
