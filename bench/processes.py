"""Starts, freezes, measures and stops the processes of a contestant.

Owns child processes and what /proc says about them. Never sends a request except GET /readyz.

Invariants:
1. A process runs on the cores that it was started with, and so do its children.
2. `stop` ends exactly what was started here, by its id, and waits for it.
"""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

START_SECONDS_MAX = 900.0  # loading 20M memberships in the slowest way
STOP_SECONDS_MAX = 120.0
_LISTENING = re.compile(r"listening on (http://\S+)")
_KIB = 1024


class BenchError(Exception):
    """The bench cannot go on or must not be trusted. The message names the place and the reason."""


class Memory(msgspec.Struct, frozen=True):
    """Resident bytes. `anonymous` is the process's own; the rest is mapped files, which the system may drop."""

    resident: int
    anonymous: int


class Endpoint(NamedTuple):
    """Where a contestant answers, and with which keys."""

    url: str
    public_key: str
    private_key: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class Child:
    """One started process. Its output goes to a file beside its data, for the message when it fails."""

    def __init__(self, command: Sequence[str | Path], log: Path, cpus: Sequence[int]) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        pinned = ["taskset", "-c", ",".join(map(str, cpus)), *map(str, command)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> str:
        """What it printed since this start."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    def require_alive(self) -> None:
        if (status := self._process.poll()) is not None:
            raise BenchError(f"process {self.pid} ended with status {status}: {self.output()[-2000:]}")

    def wait_for_url(self) -> str:
        """The address of its line `listening on http://HOST:PORT`."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if found := _LISTENING.search(self.output()):
                return found[1]
            self.require_alive()
            time.sleep(0.005)
        raise BenchError(f"process {self.pid} said nothing of listening for {START_SECONDS_MAX:.0f} s")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def wait_until_ready(url: str, child: Child) -> None:
    """Return at the first 200 of GET /readyz."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        child.require_alive()
        time.sleep(0.01)
    raise BenchError(f"{url}/readyz did not answer 200 within {START_SECONDS_MAX:.0f} s")


def descendants(pid: int) -> list[int]:
    """`pid` and everything below it."""
    found = [pid]
    for known in found:
        for task in Path(f"/proc/{known}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def send_signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def memory_of(pids: Sequence[int]) -> Memory:
    """Resident memory of the processes together."""
    resident = anonymous = 0
    for pid in pids:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        resident += int(fields["VmRSS"].split()[0]) * _KIB
        anonymous += int(fields["RssAnon"].split()[0]) * _KIB
    return Memory(resident, anonymous)


def cpu_seconds_of(pids: Sequence[int]) -> float:
    """User and system time used so far by the processes together."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def ended_children_seconds_of(pid: int) -> float:
    """Processor time of those children of a process that have ended and were waited for, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime and cstime, see proc(5)


def busy_seconds_of(cpus: Sequence[int]) -> float:
    """User and system time of all processes on these cores since the machine started, with what its host took away."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{cpu}" for cpu in cpus}:
            ticks += sum(int(fields[place]) for place in (0, 1, 2, 7))  # user, nice, system, steal; see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def disk_bytes_of(folder: Path) -> int:
    """Bytes allocated on disk (sparse files count only what they use)."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
