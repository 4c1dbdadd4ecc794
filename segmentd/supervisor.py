"""What the service says to the supervisor that started it, and does on its word: systemd's notify protocol, and SIGHUP.

Owns the socket that `NOTIFY_SOCKET` names. Never decides whether the service is ready; it asks.

Invariants:
1. Without `NOTIFY_SOCKET` nothing is sent, and nothing else is different.
2. The watchdog is fed by a task of the event loop, so a loop that is stuck feeds it no more.
3. A message that cannot be sent is logged and changes nothing: the supervisor draws its own conclusions.

Own code and no library: the protocol (sd_notify(3)) is one datagram of `NAME=value` lines to a Unix socket.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
import trio

# How often readiness is looked at while there is no watchdog, or a slow one.
_LOOK_SECONDS: Final = 0.5
# sd_watchdog_enabled(3) advises half of the time.
_WATCHDOG_SHARE: Final = 0.5

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Supervisor:
    """The other end of `NOTIFY_SOCKET`, or nobody."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """environ: `NOTIFY_SOCKET`, a path or `@` and an abstract name; `WATCHDOG_USEC`; `WATCHDOG_PID`."""
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._watchdog_seconds = _watchdog_seconds(environ)
        self._said_ready = False

    def stopping(self) -> None:
        """The service has begun to end."""
        self._send("STOPPING=1")

    async def reload(self, restart: Callable[[], Awaitable[None]]) -> None:
        """Do `restart`, and say that it begins and that it is done; before the first READY, only do it."""
        if not self._said_ready:
            await restart()
            return
        # The time lets systemd (Type=notify-reload) tell this reload from an earlier one.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")
        await restart()
        self._send("READY=1")

    async def run(self, unready: Callable[[], str | None]) -> None:
        """Say when the service is ready, and feed the watchdog, until cancelled.

        unready: why the service should get no traffic, or None.
        """
        if not self._address:
            return
        shown: str | None = ""
        look_seconds = min(_LOOK_SECONDS, self._watchdog_seconds or _LOOK_SECONDS)
        while True:
            reason = unready()
            if reason is None and not self._said_ready:
                self._said_ready = True
                self._send("READY=1")
            if reason != shown:
                shown = reason
                self._send(f"STATUS={reason or 'Ready.'}")
            if self._watchdog_seconds is not None:
                self._send("WATCHDOG=1")
            await trio.sleep(look_seconds)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the supervisor could not be told", message=lines[0], reason=str(error))


async def obey_hangups(supervisor: Supervisor, restart: Callable[[], Awaitable[None]] | None) -> None:
    """SIGHUP: `restart` what can be replaced while serving; without it nothing happens, and the process goes on."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            await supervisor.reload(restart or trio.lowlevel.checkpoint)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often this process has to show that it lives, seconds; None: nobody asks."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or meant != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 * _WATCHDOG_SHARE
