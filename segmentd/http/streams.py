"""A connection's socket with bounds on the time that a client may take.

Owns deadlines of sending and of request heads, and the count of what is not read yet. Never looks at what is sent.
"""

from __future__ import annotations

from contextlib import closing
from math import inf
from typing import Final

import trio

from segmentd.domain.refusals import Overloaded
from segmentd.http.holdings import Held, Holding

# A refused client may send all of its body before it looks for the answer; closing at once would reset the connection
# and take the answer away. So what still comes is thrown away until one of these is reached.
DRAIN_SECONDS_MAX: Final = 2.0
DRAIN_BYTES_MAX: Final = 16_777_216


def peer_of(socket: trio.socket.SocketType) -> str:
    """The address of the other end, without its port; empty if the client is gone already."""
    try:
        return str(socket.getpeername()[0])
    except OSError:
        return ""


class BoundedStream:
    """A socket stream on which sending takes a bounded time, and whose connection ends when sending fails.

    Has just what Hypercorn's `TCPServer` uses. Hypercorn's reader waits for ever where an answer could not be sent and
    another request was pipelined behind it; so a failed send cancels `scope`, in which the whole connection runs.
    """

    def __init__(
        self, stream: trio.abc.Stream, socket: trio.socket.SocketType, seconds_max: float, unread: Holding
    ) -> None:
        """socket: what `stream` stands on. seconds_max: for each send, and for a head from its first byte.

        unread: what all clients together have not read.
        """
        self._unread = unread
        self._stream = stream
        self.seconds_max = seconds_max
        self.socket = socket
        self.scope = trio.CancelScope()
        self._given_back = b""
        self._head_deadline = inf

    def give_back(self, received: bytes) -> None:
        """Let `received` be received once more, before everything else."""
        self._given_back = received

    def head_begun(self, *, begun: bool) -> None:
        """Whether some of a request's head has come, but not all of it."""
        if not begun:
            self._head_deadline = inf
        elif self._head_deadline == inf:
            self._head_deadline = trio.current_time() + self.seconds_max

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As trio's. Raises TooSlowError where a head that has begun does not come to its end in time."""
        if self._given_back:
            received, self._given_back = self._given_back, b""
            return received
        if self._head_deadline == inf:
            return await self._stream.receive_some(max_bytes)
        with trio.fail_at(self._head_deadline):
            return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        """As trio's. Raises BrokenResourceError where the client does not read in time, or one too many does not read;
        the socket is closed then.
        """
        try:
            with closing(Held(self._unread)) as held, trio.fail_after(self.seconds_max):
                held.came(len(data))
                await self._stream.send_all(data)
        except trio.BusyResourceError as error:
            # Sends never meet each other (Hypercorn has a lock), so the other one is the end of the connection.
            raise trio.BrokenResourceError("the connection is being closed") from error
        except (Overloaded, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.abort()
            self.scope.cancel()
            raise trio.BrokenResourceError("the client does not read") from error

    async def send_eof(self) -> None:
        """As trio's."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """As trio's."""
        await self._stream.aclose()

    def end_in_time(self) -> None:
        """The client has left: whatever still waits has a bounded time to come to its end."""
        self.scope.deadline = trio.current_time() + self.seconds_max

    def abort(self) -> None:
        """Close the socket now; whoever waits for it wakes up."""
        self.socket.close()
