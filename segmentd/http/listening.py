"""Accepting connections on a listener that may belong to several processes.

Owns the accepting, and that there is room for what is accepted. Who serves a connection tells the room of its end.
"""

from __future__ import annotations

import socket

import trio

from segmentd.http.elsewhere import Room


class RoomyListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only as long as there is room."""

    def __init__(self, listener: socket.socket, room: Room) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._room = room

    async def accept(self) -> trio.SocketStream:
        """As trio's. The connection is counted from now on."""
        await self._room.wait()
        stream = await self._listener.accept()
        self._room.entered()
        return stream

    async def aclose(self) -> None:
        """As trio's."""
        await self._listener.aclose()
