"""The lane: the short road for the two requests that come by the thousand.

In front of Hypercorn on the same port, for plain HTTP/1.1 `POST /v3/graphql` and `POST /v3/events` with a
Content-Length. It takes only what it fully understands. At the first request that is anything else it hands the
connection over, with every byte of that request, and Hypercorn keeps it to its end. So the lane can be small: whatever
is rare, odd or doubtful (chunks, Expect, Upgrade, HTTP/1.0, HTTP/2, TLS, repeated or unusual headers, bodies that are
too large) is not judged here. What a request means is decided by the same edge on both roads.

Invariants:
1. A byte is either consumed by a request that was answered here, or handed over (to Hypercorn, or to another process,
   see `elsewhere.py`); never both, never lost.
2. Framing is Content-Length alone, exactly one, digits only, and the C parser frames the message alike.
3. One request of a connection at a time; what a client sends ahead waits in the buffer, which is bounded.
4. Waiting is bounded: for a first byte `keep_alive_seconds_max`, for the rest of a head, for a body and for an answer
   to be taken `request_read_seconds_max` each.
5. Between two requests of a connection the loop gets its turn; so it does after a bounded number of requests of all.

Between two requests a connection rests in the reactor, which answers queries that came whole and alone (`respond`). All
else wakes the connection's task. It reads and writes with plain system calls as soon as the loop says that the socket
is ready: Trio's streams would add a cancel scope and a pass through the scheduler for each call.
"""

from __future__ import annotations

import os
from contextlib import closing
from math import inf
from typing import Final

import trio

from segmentd.domain.refusals import Overloaded, Refusal
from segmentd.http.edge import QUERIES, Edge
from segmentd.http.elsewhere import Arrived, Gives, NotHereError
from segmentd.http.errors import body_timeout
from segmentd.http.exchange import WAITING, Answer, Request, Waiting
from segmentd.http.holdings import Held
from segmentd.http.lanehead import HandedOverError, Head, Heads
from segmentd.http.reactor import RECEIVE_BYTES, Reactor
from segmentd.http.resting import Connection
from segmentd.http.streams import DRAIN_BYTES_MAX, DRAIN_SECONDS_MAX, BoundedStream, peer_of
from segmentd.http.wire import as_bytes
from segmentd.settings import ServerSettings

EVENTS: Final = "/v3/events"
HEAD_BYTES_MAX: Final = 8_192
END_SECONDS_MAX: Final = 1.0
_END_OF_HEAD: Final = b"\r\n\r\n"


class LaneEndedError(Exception):
    """The connection is over: the client left or was too slow."""


class Lane:
    """One connection, until it ends or is handed over."""

    def __init__(
        self,
        edge: Edge,
        heads: Heads,
        stream: BoundedStream,
        settings: ServerSettings,
        reactor: Reactor,
        elsewhere: Gives | None,
        arrived: Arrived,
    ) -> None:
        self._edge = edge
        self._elsewhere = elsewhere
        self._hops = arrived.hops
        self._pinned = bool(arrived.begun)
        """Whether its next request is to be answered here: another process has given it away."""
        self._released = False
        self._heads = heads
        self._stream = stream
        self._reactor = reactor
        self._read_seconds_max = settings.request_read_seconds_max
        self._peer = peer_of(stream.socket)
        self._buffer = arrived.begun
        self._connection: Connection | None = None
        self._scope = trio.CancelScope()
        self._busy = False
        """Whether a whole head was read and not answered yet."""
        self._ending = False
        self._awaited: Head | None = None
        """The head of the request whose body is being read."""

    def end(self) -> None:
        """The server stops: without a whole head the connection ends now, without a whole body soon, else after its
        answer.
        """
        self._ending = True
        if self._pinned:
            return  # Another process has read its request already.
        if not self._busy:
            self._scope.cancel()
        elif self._awaited is not None:
            # Nothing of it has begun. Whoever is still sending gets a moment, not the whole time for a body.
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + END_SECONDS_MAX)

    def release(self) -> None:
        """Hand the connection over as soon as no answer is being written."""
        self._released = True
        if not self._busy or self._awaited is not None:
            self._scope.cancel()

    def respond(self, received: bytes) -> tuple[bytes, bool] | Waiting | None:
        """Answer a request that needs no task, and whose bytes are exactly `received`. See `Reactor`."""
        end = received.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
        if end < 0:
            return None
        start = end + len(_END_OF_HEAD)
        try:
            head = self._heads.read(received[:start])
        except HandedOverError:
            return None
        if start + head.length != len(received) or head.closes or self._is_for_elsewhere(head):
            return None
        request = Request("POST", head.path, "", dict(head.headers), received[start:], peer=self._peer, road="lane")
        try:
            answer = self._edge.answer_at_once(request, head.match, self._answer_later)
        except NotHereError:
            return None
        if isinstance(answer, Answer):
            return as_bytes(answer, answer.close), not answer.close
        self._busy = answer is WAITING
        return answer

    def _answer_later(self, answer: Answer) -> None:
        """What `respond` left open."""
        self._busy = False
        closes = answer.close or self._ending
        if self._connection is not None:
            self._reactor.answer(self._connection, as_bytes(answer, closes), not closes, moves=self._released)

    async def run(self) -> bytes | None:
        """Serve requests. Returns the bytes to hand over, or None if the connection is over."""
        try:
            connection = self._connection = self._reactor.add(self._stream.socket.fileno(), self.respond)
        except (OSError, ValueError):
            return None  # The socket is closed.
        try:
            return await self._run(connection)
        finally:
            self._reactor.remove(connection)
            self._connection = None  # It refers back here: without the circle both are freed at once.

    async def _run(self, connection: Connection) -> bytes | None:
        try:
            with self._scope:
                while await self._serve_one(connection):
                    pass
            if self._scope.cancelled_caught and self._released:
                return self._buffer
            if self._scope.cancelled_caught and self._awaited is not None:
                # Whoever cannot finish a head gets no answer; a body that stops has a request to be answered.
                await self._refuse(self._awaited, body_timeout(self._read_seconds_max))
        except (HandedOverError, NotHereError):
            return self._buffer
        except (LaneEndedError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return None

    async def _serve_one(self, connection: Connection) -> bool:
        """Read, answer, send. False: the connection ends after this answer."""
        if self._released:
            raise HandedOverError
        if self._buffer:
            await trio.lowlevel.checkpoint()
        else:
            await self._reactor.rest(connection)
            if connection.unsent or not connection.stays:
                with trio.CancelScope(shield=True):  # A request that was answered gets its answer; sending has a bound.
                    await self._stream.send_all(connection.unsent)
                return connection.stays
            if not connection.received:
                raise LaneEndedError
            self._buffer = connection.received
        head_bytes = await self._head()
        head = self._heads.read(head_bytes)
        if self._is_given_away(head):
            raise LaneEndedError
        self._busy = True
        end = len(head_bytes) + head.length
        with closing(self._edge.holdings.open(head.path)) as body:
            return await self._serve_body(head, len(head_bytes), end, body)

    async def _serve_body(self, head: Head, start: int, end: int, counted: Held) -> bool:
        """As `_serve_one`, of a request whose head is in the buffer up to `start`."""
        try:
            await self._read_up_to(end, head, counted)
        except Overloaded as refusal:
            counted.close()
            return await self._refuse(head, refusal)
        if self._released and self._scope.cancel_called:
            raise HandedOverError
        if self._scope.cancel_called:
            raise LaneEndedError  # The time was over in the moment of the last byte: nothing is begun then.
        # It stays in the buffer until it is answered: it may turn out to be for another process.
        stays = await self._answer(head, self._buffer[start:end], None)
        self._buffer = self._buffer[end:]
        self._busy = self._pinned = False
        return stays

    async def _refuse(self, head: Head, trouble: Refusal) -> bool:
        """Answer a request whose body is not read to its end; the connection ends."""
        self._buffer, self._awaited = b"", None
        stays = await self._answer(head, b"", trouble)
        await self._drain()
        return stays

    def _is_given_away(self, head: Head) -> bool:
        """Whether the connection with this request is another process's now."""
        if self._elsewhere is None or not self._is_for_elsewhere(head):
            return False
        return self._elsewhere.give(self._stream.socket.fileno(), self._buffer, self._hops + 1)

    def _is_for_elsewhere(self, head: Head) -> bool:
        """Whether this request is a query that another process answers better now."""
        if self._elsewhere is None or self._pinned or self._ending:
            return False
        return head.path == QUERIES and self._elsewhere.wants(self._hops)

    async def _answer(self, head: Head, body: bytes, trouble: Refusal | None) -> bool:
        request = Request("POST", head.path, "", dict(head.headers), body, peer=self._peer, road="lane")
        # An event is committed whether or not its client waits in time; only reading and writing are bounded.
        self._scope.deadline = inf
        answer = await self._edge.answer(request, head.match, trouble)
        closes = answer.close or head.closes or self._ending or trouble is not None
        written = as_bytes(answer, closes)
        sent = self._sent(written)
        if sent < len(written):
            await self._stream.send_all(written[sent:])
        return not (closes or self._ending)

    async def _head(self) -> bytes:
        """The bytes of a whole head; they stay in the buffer. Raises HandedOverError."""
        bounded = False
        while True:
            end = self._buffer.find(_END_OF_HEAD, 0, HEAD_BYTES_MAX)
            if end >= 0:
                return self._buffer[: end + len(_END_OF_HEAD)]
            if len(self._buffer) >= HEAD_BYTES_MAX or not self._heads.may_begin(self._buffer):
                raise HandedOverError
            if not bounded:
                self._allow(self._read_seconds_max)
                bounded = True
            self._buffer += await self._received(HEAD_BYTES_MAX)

    async def _read_up_to(self, end: int, head: Head, counted: Held) -> None:
        """Have a whole request, `end` bytes, in the buffer; what follows it may be there too. Raises Overloaded."""
        counted.came(len(self._buffer))
        if len(self._buffer) >= end:
            return
        self._allow(self._read_seconds_max)
        self._awaited = head
        gathered = bytearray(self._buffer)  # grows in place: small pieces cost neither time nor room
        try:
            while len(gathered) < end:
                received = await self._received(RECEIVE_BYTES)
                counted.came(len(received))
                gathered += received
        finally:
            self._buffer = bytes(gathered)
        self._awaited = None

    async def _drain(self) -> None:
        """Read on for a little, so that the client gets to reading its answer before the connection is reset."""
        await self._stream.send_eof()
        drained = 0
        with trio.move_on_after(DRAIN_SECONDS_MAX):
            while drained < DRAIN_BYTES_MAX:
                drained += len(await self._received(RECEIVE_BYTES))

    def _allow(self, seconds: float) -> None:
        if self._ending:
            seconds = min(seconds, END_SECONDS_MAX)
        self._scope.deadline = trio.current_time() + seconds

    async def _received(self, size: int) -> bytes:
        """Some bytes, as soon as there are any. Raises LaneEndedError at the end of the stream."""
        while True:
            descriptor = self._stream.socket.fileno()
            if descriptor < 0:
                raise LaneEndedError
            await trio.lowlevel.wait_readable(descriptor)
            try:
                received = os.read(self._stream.socket.fileno(), size)
            except BlockingIOError:
                continue
            if not received:
                raise LaneEndedError
            return received

    def _sent(self, data: bytes) -> int:
        """How much of `data` the kernel took at once, which is nearly always all of it."""
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
