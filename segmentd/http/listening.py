"""Accepting connections on a listener that may belong to several processes.

Owns the accepting, and that there is room for what is accepted. Who serves a connection tells the room of its end.

Invariant: where the kernel has nothing to accept with (descriptors, memory), connections wait in the backlog, nothing
spins, and the log says so now and then in one line.
"""

from __future__ import annotations

import errno
import math
import socket
from typing import Final

import structlog
import trio

from segmentd.http.elsewhere import Room

_NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_AGAIN_SECONDS: Final = 0.1
_SAID_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class RoomyListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only as long as there is room."""

    def __init__(self, listener: socket.socket, room: Room) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._room = room
        self._said_at = -math.inf

    async def accept(self) -> trio.SocketStream:
        """As trio's. The connection is counted from now on."""
        while True:
            await self._room.wait()
            try:
                stream = await self._listener.accept()
            except OSError as error:
                if error.errno not in _NOTHING_LEFT:
                    raise
                self._say(error)
                await trio.sleep(_AGAIN_SECONDS)
            else:
                self._room.entered()
                return stream

    def _say(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._said_at >= _SAID_SECONDS:
            self._said_at = now
            _log.error("no connection can be accepted; further ones wait", reason=error.strerror)

    async def aclose(self) -> None:
        """As trio's."""
        await self._listener.aclose()
