"""One server of a cluster as a child process: its folder, its configuration, and the faults that befall one server.

Invariants:
1. `start` returns when the server answers; after `kill` it is reaped. A server keeps its folder, port and identity.
2. Every question is a connection of its own, so any thread may ask at any time, also after a kill.
3. Every wait is bounded, and says in the end what the server logged.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.cluster.engines import Engine
from tests.cluster.resp import Connection, Credentials, Reply, ReplyError, Word, connected

# Bounds that turn a hang into a failure; a healthy server needs a small fraction of them.
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02

STALL_MILLISECONDS_MAX = 600_000
LOG_LINES_SHOWN = 30

Settings = Mapping[str, str | int | list[str]]
"""The lines of a configuration; a list is a directive that stands there several times."""


class View(NamedTuple):
    """What a server believes of one server, itself included: a line of CLUSTER NODES.

    slots: the ones it owns, without those that are just moving in.
    """

    node_id: str
    flags: frozenset[str]
    master_id: str | None
    epoch: int
    slots: tuple[range, ...]

    @property
    def is_master(self) -> bool:
        return "master" in self.flags

    def owns(self, slot: int) -> bool:
        return any(slot in part for part in self.slots)


class Node:
    """A server below `folder`, whose `nodes.conf` says who else is in the cluster.

    node_id: its name among the servers, 40 hex digits.
    """

    def __init__(self, folder: Path, node_id: str, port: int, engine: Engine, credentials: Credentials) -> None:
        self.folder = folder
        self.node_id = node_id
        self.port = port
        self._engine = engine
        self._credentials = credentials
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False

    def __repr__(self) -> str:
        return f"<{self.folder.name} {self.address}>"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """It was started and has not been killed; a frozen one runs."""
        return self._process is not None

    @property
    def is_frozen(self) -> bool:
        return self._frozen

    @property
    def answers(self) -> bool:
        return self.is_running and not self._frozen

    def configure(self, settings: Settings) -> None:
        """Write what the next start reads."""
        self.folder.mkdir(exist_ok=True)
        lines = [
            f"{name} {value}"
            for name, values in settings.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        (self.folder / "server.conf").write_text("\n".join([*lines, ""]), encoding="utf-8")

    def launch(self, group: int) -> None:
        """Start the process in the process group `group`; `wait_answering` waits for it."""
        assert self._process is None, f"{self} is running"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._engine.path, str(self.folder / "server.conf")],
                env=self._engine.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=group,
            )

    def wait_answering(self) -> None:
        """Wait until the server has read its data and answers."""

        def complaint() -> str | None:
            assert self._running().poll() is None, f"{self} ended with {self._running().returncode}:\n{self.log_text()}"
            try:
                self.call("PING")
            except (OSError, ReplyError) as error:
                return f"{self}: {error}"
            return None

        wait_for(complaint, START_SECONDS_MAX, self.log_text)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends the process, and wait for the end."""
        process = self._running()
        process.send_signal(number)
        process.wait(STOP_SECONDS_MAX)
        self._process, self._frozen = None, False

    def freeze(self) -> None:
        """SIGSTOP: connections stay and nothing is answered. What is sent meanwhile waits in the kernel, and counts
        after `thaw`."""
        self._running().send_signal(signal.SIGSTOP)
        wait_for(lambda: None if self._stat()[0] == "T" else f"{self} goes on", STOP_SECONDS_MAX)
        self._frozen = True

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)
        self._frozen = False

    def stall_replication(self) -> None:
        """From now on this replica applies and acknowledges nothing of what its master sends, although it is alive, the
        link is up and its master counts it as good.

        What waits is applied by `resume_replication`; if the master's connection ends before, it is lost, as with a
        network that stalls. (A pause of writes holds the master's commands as well, without telling anybody.)
        """
        assert self.call("CLIENT", "PAUSE", STALL_MILLISECONDS_MAX, "WRITE") == b"OK"

    def resume_replication(self) -> None:
        assert self.call("CLIENT", "UNPAUSE") == b"OK"

    def take_over(self) -> None:
        """Become the master of what this replica replicates, without asking anybody, however far it lags."""
        assert self.call("CLUSTER", "FAILOVER", "TAKEOVER") == b"OK"
        # A replica whose replication was stalled would let its first clients wait.
        self.resume_replication()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        with connected(self.port, self._credentials) as connection:
            yield connection

    def call(self, *words: Word) -> Reply:
        """Send one command to this server; raises OSError, ReplyError."""
        with self.connection() as connection:
            return connection.call(*words)

    def info(self, section: str) -> dict[str, str]:
        """`INFO section` of this server, by name."""
        with self.connection() as connection:
            return connection.info(section)

    def views(self) -> dict[str, View]:
        """What this server believes of every server, by their ids."""
        with self.connection() as connection:
            views = [_view(line.split()) for line in connection.text("CLUSTER", "NODES").splitlines()]
        return {view.node_id: view for view in views}

    @property
    def pid(self) -> int:
        return self._running().pid

    def cpu_seconds(self) -> float:
        """Processor time that the running process has used, in user mode and in the kernel."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory of the running process that is in RAM, as the kernel counts it."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def used_bytes(self) -> int:
        """Memory that the server itself has allocated, for data and buffers."""
        return int(self.info("memory")["used_memory"])

    def log_text(self) -> str:
        """The last lines that the server logged, in all its lives."""
        log = self.folder / "log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return "\n".join([f"log of {self}:", *lines[-LOG_LINES_SHOWN:]])

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self} is not running"
        return self._process

    def _stat(self) -> list[str]:
        """The fields of proc(5)'s stat from the third, the state, on."""
        return Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def wait_for(complaint: Callable[[], str | None], seconds_max: float, told: Callable[[], str] | None = None) -> None:
    """Wait until `complaint` has none; fails with the last one, and with what `told` tells, after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while (said := complaint()) is not None:
        if time.monotonic() > deadline:
            raise AssertionError("\n".join(filter(None, [said, told and told()])))
        time.sleep(POLL_SECONDS)


def _view(fields: list[str]) -> View:
    """A line: id, address, flags, master, ping, pong, epoch, link, slots as N, N-M, or [N->-id] while they move."""
    node_id, _, flags, master_id, _, _, epoch, _, *slots = fields
    bounds = [part.split("-") for part in slots if not part.startswith("[")]
    return View(
        node_id,
        frozenset(flags.split(",")),
        None if master_id == "-" else master_id,
        int(epoch),
        tuple(range(int(part[0]), int(part[-1]) + 1) for part in bounds),
    )
