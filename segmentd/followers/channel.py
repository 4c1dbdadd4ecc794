"""The way between the owner and a follower: whole messages in order, each with at most one descriptor.

A Unix socket pair of the kind SEQPACKET: the kernel keeps messages apart and passes descriptors on (SCM_RIGHTS), and
when one process dies the other one reads the end. Never knows what a message means.

Invariants:
1. A message arrives whole, once and in order, or the receiver is gone.
2. What is too large for a packet travels in a memory file, so there is no bound here beside that of the sender.
3. A descriptor that is sent stays the sender's, who closes it; one that is received is the receiver's.
4. No more waits in the channel than the kernel's buffer holds. Sending waits `SEND_SECONDS_MAX` for room at most.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from typing import Final

import msgspec
import trio

from segmentd.followers.messages import Message

SEND_SECONDS_MAX: Final = 5.0
PACKET_BYTES_MAX: Final = 65_536
_BUFFER_BYTES: Final = 1 << 20
_FULL_SECONDS: Final = 0.01
_INLINE: Final = b"i"
_IN_FILE: Final = b"f"
_DESCRIPTORS_MAX: Final = 2
_INT_BYTES: Final = array.array("i").itemsize
# The receiver has not taken the descriptors that were sent to it yet, or has no room for them.
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS})

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Message).decode


class ChannelEndedError(Exception):
    """The other process is gone."""


class ChannelFullError(Exception):
    """There was no room in time; nothing was sent."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = trio.Lock()

    def send_now(self, message: Message, descriptor: int | None = None) -> bool:
        """Send without waiting; False if there is no room. Raises ChannelEndedError."""
        packet, file = _packed(message)
        descriptors = [number for number in (descriptor, file) if number is not None]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._end.sendmsg([packet], rights)
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise ChannelEndedError(error.strerror) from error
        finally:
            if file is not None:
                os.close(file)
        return True

    async def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send, waiting for room. Raises ChannelEndedError, ChannelFullError."""
        if self.send_now(message, descriptor):
            return
        with trio.move_on_after(SEND_SECONDS_MAX):
            async with self._sending:
                while not self.send_now(message, descriptor):
                    try:
                        await trio.lowlevel.wait_writable(self._end)
                    except trio.ClosedResourceError as error:
                        raise ChannelEndedError("it was closed") from error
                    # Writable says nothing about room for descriptors.
                    await trio.sleep(_FULL_SECONDS)
            return
        raise ChannelFullError(f"the other process took nothing for {SEND_SECONDS_MAX:g} seconds")

    async def receive(self) -> tuple[Message, int | None]:
        """The next message and its descriptor, if it has one. One task at a time. Raises ChannelEndedError."""
        while True:
            await _readable(self._end)
            try:
                packet, descriptors = self._received()
            except BlockingIOError:
                continue
            except ConnectionError:
                # It died before it had read everything; what it sent before is still to come.
                continue
            if not packet:
                raise ChannelEndedError("the other process is gone")
            if packet[:1] == _IN_FILE:
                if not descriptors:
                    raise ChannelEndedError("a descriptor was lost")
                return _decode(_content(descriptors.pop())), _only(descriptors)
            return _decode(memoryview(packet)[1:]), _only(descriptors)

    def close(self) -> None:
        """Close this end; the other process reads the end."""
        self._end.close()

    def _received(self) -> tuple[bytes, list[int]]:
        space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * _INT_BYTES)
        packet, rights, _, _ = self._end.recvmsg(PACKET_BYTES_MAX + 1, space, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for level, kind, data in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % _INT_BYTES])
        return packet, list(descriptors)


async def _readable(end: socket.socket) -> None:
    try:
        await trio.lowlevel.wait_readable(end)
    except (trio.ClosedResourceError, ValueError) as error:
        raise ChannelEndedError("it was closed") from error


def _packed(message: Message) -> tuple[bytes, int | None]:
    """The packet, and the memory file with the message in it where it is too large for a packet."""
    encoded = _encode(message)
    if len(encoded) < PACKET_BYTES_MAX:
        return _INLINE + encoded, None
    file = os.memfd_create("segmentd-message", os.MFD_CLOEXEC)
    with open(file, "wb", closefd=False) as out:
        out.write(encoded)
    return _IN_FILE, file


def _content(file: int) -> bytes:
    """All of a memory file, which is closed."""
    with open(file, "rb") as content:
        content.seek(0)
        return content.read()


def _only(descriptors: list[int]) -> int | None:
    return descriptors[0] if descriptors else None
