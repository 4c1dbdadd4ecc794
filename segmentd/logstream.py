"""Where the lines of the log go: a stream that neither fails nor holds up whoever writes to it.

A log is written from everywhere, also between a commit and its acknowledgement. So a full disk, a reader that has gone
and one that reads no more cost lines, and nothing else.

Invariants:
1. `write` raises nothing because of the stream, and waits for `PATIENCE_SECONDS` at most; not at all while the last
   line was lost.
2. What is written is whole lines: of a line that was taken in part the rest comes first.
3. Lines that are lost are counted, and `take_lost` lets the next line say so.
"""

from __future__ import annotations

import io
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Final, TextIO

PATIENCE_SECONDS: Final = 0.1
"""Long enough for a reader that is only slow; short enough for a loop that serves queries."""
_STANDARD_STREAMS: Final = 3


def keep_standard_streams() -> None:
    """Open what was closed of 0, 1 and 2: the next file to be opened would get the number, and all that is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _STANDARD_STREAMS:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class LogStream(io.TextIOBase):
    """A stream of text over `stream`; over nothing, where the process began without one."""

    def __init__(self, stream: TextIO | None) -> None:
        self.lines_lost = 0
        """Since the start."""
        self._untold = self._telling = 0
        self._rest = b""
        self._stuck = False
        self._isatty = stream is not None and stream.isatty()
        self._send, self._descriptor = _sender(stream)

    def isatty(self) -> bool:
        """Whether people watch."""
        return self._isatty

    def write(self, text: str) -> int:
        """One line, or several that belong together."""
        if self._sent():
            self._rest = line = text.encode("utf-8", "backslashreplace")
            if self._sent() or len(self._rest) < len(line):
                self._telling = 0
                return len(text)
            self._rest = b""
        self.lines_lost += 1
        self._untold += 1 + self._telling
        self._telling = 0
        return len(text)

    def take_lost(self) -> int:
        """How many lines are lost and nobody was told of; the line that is written next has to tell."""
        self._telling, self._untold = self._telling + self._untold, 0
        return self._telling

    def _sent(self) -> bool:
        """Send what is left of a line; whether nothing is left of it."""
        while self._rest:
            try:
                sent = self._send(self._rest)
            except BlockingIOError:
                if not self._may_wait():
                    return False
                continue
            except (OSError, ValueError):
                return False
            self._rest = self._rest[sent:]
            self._stuck = False
        return True

    def _may_wait(self) -> bool:
        """Whether there is room again, after some waiting."""
        if self._stuck or self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        self._stuck = not poll.poll(PATIENCE_SECONDS * 1000)
        return not self._stuck


def _sender(stream: TextIO | None) -> tuple[Callable[[bytes], int], int]:
    """What sends bytes and never waits, and the descriptor whose room can be waited for (-1: none)."""
    if stream is None:
        return len, -1
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return _in_memory(stream), -1
    if stat.S_ISSOCK(mode):
        end = socket.socket(fileno=os.dup(descriptor))
        return lambda data: end.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), descriptor
    if stat.S_ISREG(mode):
        return lambda data: os.write(descriptor, data), descriptor
    return _pipe(descriptor), descriptor


def _in_memory(stream: TextIO) -> Callable[[bytes], int]:
    def send(data: bytes) -> int:
        stream.write(data.decode())
        stream.flush()
        return len(data)

    return send


def _pipe(descriptor: int) -> Callable[[bytes], int]:
    """For pipes and terminals. Whether to wait is a property of an opening that other processes share; so open anew."""
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        own = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        # Another user's pipe, as in a container. Where there is room at all, there is room for so much.
        return lambda data: _written_where_room(descriptor, data)
    return lambda data: os.write(own, data)


def _written_where_room(descriptor: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])
