"""One real segmentd server as a child process: started, asked, killed and started again on the same data folder.

Owns the child process, its configuration file and the lines it prints. Never imports segmentd: what a test learns here,
it learns as an operator or a client would.

Invariants:
1. The port is chosen by the kernel and read from the start line, so any number of servers can run side by side.
2. `start` returns only when `/readyz` answered 200; after `kill`, `terminate` or `close` the process is reaped.
3. Nothing of the caller's environment named `SEGMENTD_*` reaches the server; what a test wants set, it passes itself.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[1]
START_LINE = re.compile(r"listening on (http://\S+)")

# Bounds that turn a hang into a failure; a healthy server needs a small fraction of them.
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
READY_POLL_SECONDS = 0.02

PROGRAM = "segmentd"
AWAITED_PROGRAM = "tests.awaitedserver"
"""The same over a store that has to be waited for."""
PROGRAMS = (PROGRAM, AWAITED_PROGRAM)
PUBLIC_KEY = "test-public-key"
PRIVATE_KEY = "test-private-key"

Sections = Mapping[str, Mapping[str, Any]]


class ServerDiedError(Exception):
    """The server process ended before it was ready; `returncode` is negative for a signal."""

    def __init__(self, returncode: int, log: str) -> None:
        super().__init__(f"the server ended with {returncode} before it was ready; its log:\n{log}")
        self.returncode = returncode


class ServerProcess:
    """A server on `folder`: `segmentd.toml` and `data/` lie in it and outlive every start.

    sections: settings by section, laid over the test configuration, e.g. `{"runtime": {"shards": 2}}`.
    """

    public_key = PUBLIC_KEY
    private_key = PRIVATE_KEY

    def __init__(self, folder: Path, sections: Sections | None = None, *, program: str = PROGRAM) -> None:
        """program: the module that serves."""
        self._program = program
        self.data = folder / "data"
        self.config = folder / "segmentd.toml"
        self.config.write_text(_toml(_configuration(sections or {})), encoding="utf-8")
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._pumps: list[threading.Thread] = []
        self._url = ""
        self._environ: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`http://HOST:PORT` of the running server, without a slash at the end."""
        return self._url

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start the server and wait until it is ready.

        environ: variables for this start alone, and for every `restart` after it.
        Raises ServerDiedError: the process ended instead (a failpoint, a refused configuration).
        """
        assert self._process is None, "the server is already running"
        self._environ = dict(environ or {})
        started: Future[str] = Future()
        serve = self.command("serve", "--listen", "127.0.0.1:0")
        self._process = subprocess.Popen(
            [self._program if part == PROGRAM else part for part in serve],
            cwd=ROOT,
            env=_environment(self._environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._pump(self._process.stdout, started)
        self._pump(self._process.stderr, None)
        self._url = started.result(START_SECONDS_MAX)
        if not self._url:
            raise ServerDiedError(self.wait(), self.log_text())
        self._wait_ready()

    def restart(self) -> None:
        """Kill the server if it still runs, and start it again on the same data folder."""
        if self._process is not None:
            self.kill()
        self.start(self._environ)

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to finish anything."""
        self._running().kill()
        self.wait()

    def terminate(self) -> None:
        """SIGTERM: the server must finish what it took and exit with 0."""
        self._running().send_signal(signal.SIGTERM)
        returncode = self.wait()
        assert returncode == 0, f"after SIGTERM the server exited with {returncode}; its log:\n{self.log_text()}"

    def wait(self) -> int:
        """Wait until the process has ended (bounded); returns its exit code, negative for a signal."""
        process = self._running()
        returncode = process.wait(STOP_SECONDS_MAX)
        for pump in self._pumps:
            # A grandchild that outlived the server could still hold the pipe, so this wait is bounded too.
            pump.join(1.0)
        self._process, self._pumps = None, []
        self.log.append(f"-- exited with {returncode}")
        return returncode

    def close(self) -> None:
        """End the server by any means; for the end of a test, whatever state it left behind."""
        if self._process is not None:
            self.kill()

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line `segmentd NAME` with this server's configuration and data folder."""
        return [
            *(sys.executable, "-m", PROGRAM, name),
            *("--config", str(self.config), "--data", str(self.data)),
            *arguments,
        ]

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run `segmentd check` on the data folder; the server must be stopped."""
        assert self._process is None, "segmentd check wants the folder to itself"
        command, environ = self.command("check"), _environment({})
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client with the server's address and, if given, an `x-api-key`."""
        headers = {} if key is None else {"x-api-key": key}
        return httpx.Client(base_url=self._url, headers=headers, timeout=STOP_SECONDS_MAX, **options)

    def log_text(self, first_line: int = 0) -> str:
        """What the server printed on both streams, from line `first_line` on."""
        return "\n".join(self.log[first_line:])

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server is not running"
        return self._process

    def _pump(self, stream: IO[str] | None, started: Future[str] | None) -> None:
        assert stream is not None
        pump = threading.Thread(target=_read_lines, args=(stream, self.log, started), daemon=True)
        pump.start()
        self._pumps.append(pump)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        with self.client() as client:
            while not _is_ready(client):
                if self._running().poll() is not None:
                    raise ServerDiedError(self.wait(), self.log_text())
                assert time.monotonic() < deadline, f"the server never became ready; its log:\n{self.log_text()}"
                time.sleep(READY_POLL_SECONDS)


@contextmanager
def log_shown(server: ServerProcess) -> Iterator[ServerProcess]:
    """Print what the server logs meanwhile; pytest shows it for a failed test and hides it otherwise."""
    first_line = len(server.log)
    try:
        yield server
    finally:
        print(f"log of the server at {server.url}:\n{server.log_text(first_line)}")


def key_settings(secret: str, right: str) -> dict[str, str]:
    """The section `[keys.<id>]` for one key: salted hash and right, never the secret."""
    salt = hashlib.sha256(f"salt of {secret}".encode()).digest()[:16]
    return {"right": right, "salt": salt.hex(), "sha256": hashlib.sha256(salt + secret.encode()).hexdigest()}


def _configuration(sections: Sections) -> dict[str, Mapping[str, Any]]:
    base: dict[str, Mapping[str, Any]] = {
        "passthrough": {"enabled": True},
        "log": {"format": "human", "level": "info"},
        "keys.test-public": key_settings(PUBLIC_KEY, "public"),
        "keys.test-private": key_settings(PRIVATE_KEY, "private"),
    }
    return base | {name: {**base.get(name, {}), **section} for name, section in sections.items()}


def _toml(sections: Sections) -> str:
    # JSON's strings, numbers, booleans and flat lists are TOML values too, so nothing more is needed to write one.
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items()), ""])
        for name, section in sections.items()
    )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTD_")}
    return inherited | dict(environ)


def _read_lines(stream: IO[str], log: list[str], started: Future[str] | None) -> None:
    """Copy `stream` into `log`; resolve `started` with the address, or with "" when the stream ended without one."""
    with stream:
        for line in stream:
            log.append(line.rstrip("\n"))
            match = START_LINE.fullmatch(log[-1])
            if match is not None and started is not None and not started.done():
                started.set_result(match[1])
    if started is not None and not started.done():
        started.set_result("")


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
