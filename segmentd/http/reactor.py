"""The reactor: where the lane's connections are between two requests, and what answers plain queries on the spot.

One task watches all connections that rest, through an epoll descriptor of its own on which each is registered once.
What comes whole and needs no waiting is read, answered and written in one go, without a switch of tasks and without
arming anything again, which is half of what a query costs otherwise. Everything else wakes the connection's own task
with the bytes that were read. Never looks at what is said: the lane does (`respond`).

Invariants:
1. Bytes that were read are either answered whole or given to the connection's task; an answer that the kernel did not
   take whole is given to it too.
2. Registrations are edge-triggered. Whatever may have come without an edge still to come is noted (`unread`), and is
   read before the connection rests again.
3. At most `ANSWERS_A_TURN_MAX` requests are answered in a turn, and one for each connection. The loop gets its own turn
   after it, or where a client is quick and no answer is owed, a quarter of a millisecond later (`busypolling.py`).
4. A connection rests for `idle_seconds_max` at most; that bound is kept by one task for all.
5. What goes wrong with one connection is raised in its own task.
6. A turn may also come in the middle of another task's work (`interlude`), never in the middle of a turn, and no more
   often than every `INTERLUDE_SECONDS`, so that the work goes on however much is asked.
"""

from __future__ import annotations

import contextlib
import os
import select
from itertools import takewhile
from math import inf
from typing import Final

import trio

from segmentd.http.busypolling import BusyPolling
from segmentd.http.resting import Connection, Respond

ANSWERS_A_TURN_MAX: Final = 32
RECEIVE_BYTES: Final = 65_536
# So long a query may wait behind one slice after the other; a turn in which all connections ask takes about as long.
INTERLUDE_SECONDS: Final = 0.001


class Reactor:
    """All resting connections of a server."""

    def __init__(self, idle_seconds_max: float, busy_polling: BusyPolling) -> None:
        self._idle_seconds_max = idle_seconds_max
        self._busy_polling = busy_polling
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._resting: dict[int, Connection] = {}
        """Those that rest, the one that is idle for longest first."""
        self._late: list[tuple[Connection, bytes, bool]] = []
        """Answers that came later and were not sent yet."""
        self._sender = trio.lowlevel.ParkingLot()
        self._turning = False
        self._turned_at = -inf
        self._owed = 0
        """How many answers come later."""
        self._left = False
        """Whether the last turn left something to others."""

    def add(self, descriptor: int, respond: Respond) -> Connection:
        """A new connection; `remove` it before it goes elsewhere or is closed. Raises OSError."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        connection = self._connections[descriptor] = Connection(descriptor, respond)
        return connection

    def remove(self, connection: Connection) -> None:
        """Nothing is read from it any more. Does nothing where its number already belongs to another connection."""
        descriptor = connection.descriptor
        if self._connections.get(descriptor) is not connection:
            return
        del self._connections[descriptor]
        with contextlib.suppress(OSError):  # It was closed, which has taken it out of the set.
            self._epoll.unregister(descriptor)

    async def rest(self, connection: Connection) -> None:
        """Return when the connection's task has something to do: `received`, `unsent` and `stays` say what.

        Meanwhile plain queries are answered. Raises what went wrong with this connection.
        """
        connection.received = connection.unsent = b""
        connection.stays = True
        await trio.lowlevel.checkpoint_if_cancelled()
        if (connection.unread or connection.ended) and _read_on(connection):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        connection.task = trio.lowlevel.current_task()
        connection.idle_since = trio.current_time()
        self._resting[connection.descriptor] = connection

        def abort(_: object) -> trio.lowlevel.Abort:
            if connection.owes:
                connection.owes = False
                self._owed -= 1
            else:
                del self._resting[connection.descriptor]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if connection.failure is not None:
            raise connection.failure

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_idle)
                nursery.start_soon(self._send_late)
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    self._turn()
                    self._look_on()
        finally:
            self._epoll.close()

    def answer(self, connection: Connection, written: bytes, stays: bool, *, moves: bool) -> None:
        """An answer that comes later. moves: what happens next is for the connection's task."""
        connection.unread |= moves
        if not self._late:
            self._sender.unpark()
        self._late.append((connection, written, stays))

    def interlude(self) -> None:
        """Between two slices of long work: answer who waits already, if the last turn was long enough ago."""
        if trio.current_time() - self._turned_at >= INTERLUDE_SECONDS and not self._turning:
            self._turn()

    def _look_on(self) -> None:
        """More turns for clients that are quick, as long as nothing of theirs is left to others."""
        if self._busy_polling.quick and not self._owed and not self._left:
            for _ in self._busy_polling.looks():
                self._turn()
                if self._left:
                    break

    def _turn(self) -> None:
        """Read and answer all that is ready, then send: a client woken by the first answer finds the others there."""
        self._turning, self._left = True, False
        try:
            self._answer_ready()
        finally:
            self._turning = False
            self._turned_at = trio.current_time()

    def _answer_ready(self) -> None:
        answered: list[tuple[Connection, bytes, bool]] = []
        ready = self._epoll.poll(0, ANSWERS_A_TURN_MAX)
        if not ready:
            return
        came_at, quickest_at = self._busy_polling.clock(), -inf
        for descriptor, flags in ready:
            connection = self._connections.get(descriptor)
            if connection is None:
                continue  # Closed here while another process has it: its edges cannot be switched off any more.
            connection.ended = flags != select.EPOLLIN
            if descriptor not in self._resting:
                connection.unread = True
                continue
            quickest_at = max(quickest_at, connection.answered_at)
            try:
                answer = self._answer(connection)
            except Exception as failure:  # noqa: BLE001  # raised where it belongs, the others go on
                connection.failure = failure
                self._wake(connection)
            else:
                if answer is not None:
                    answered.append((connection, *answer))
        self._busy_polling.asked(came_at - quickest_at)
        if not answered:
            return
        now, answered_at = trio.current_time(), self._busy_polling.answered()
        for connection, written, stays in answered:
            connection.answered_at = answered_at
            self._send(connection, written, stays, now)

    def _answer(self, connection: Connection) -> tuple[bytes, bool] | None:
        """The answer and whether the connection stays; None: there is none, or it is for the connection's task."""
        received = _read(connection)
        if received is None:
            return None
        if received and not connection.unread and not connection.ended:
            answer = connection.respond(received)
            if isinstance(answer, tuple):
                return answer
            if answer is not None:
                del self._resting[connection.descriptor]
                connection.owes = self._left = True
                self._owed += 1
                return None
        connection.received = received
        self._wake(connection)
        return None

    async def _send_late(self) -> None:
        """Send what came later together: a client woken by the first answer finds the others there."""
        while True:
            if not self._late:
                await self._sender.park()
            late, self._late = self._late, []
            now = trio.current_time()
            for connection, written, stays in late:
                if not connection.owes:
                    continue  # Its task was cancelled.
                connection.owes = False
                self._owed -= 1
                self._resting[connection.descriptor] = connection
                if connection.unread or connection.ended:
                    connection.unsent, connection.stays = written, stays
                    self._wake(connection)
                else:
                    self._send(connection, written, stays, now)

    def _send(self, connection: Connection, written: bytes, stays: bool, now: float) -> None:
        sent = _sent(connection.descriptor, written)
        if sent == len(written) and stays:
            del self._resting[connection.descriptor]
            self._resting[connection.descriptor] = connection
            connection.idle_since = now
            return
        connection.unsent, connection.stays = written[sent:], stays
        self._wake(connection)

    def _wake(self, connection: Connection) -> None:
        self._left = True
        del self._resting[connection.descriptor]
        if connection.task is not None:
            trio.lowlevel.reschedule(connection.task)

    async def _end_idle(self) -> None:
        while True:
            oldest = next(iter(self._resting.values()), None)
            since = trio.current_time() if oldest is None else oldest.idle_since
            await trio.sleep_until(since + self._idle_seconds_max)
            for connection in self._idle_at(trio.current_time()):
                self._wake(connection)

    def _idle_at(self, now: float) -> list[Connection]:
        """Those that have rested for too long."""
        return list(
            takewhile(lambda each: each.idle_since + self._idle_seconds_max <= now, self._resting.values()),
        )


def _read_on(connection: Connection) -> bool:
    """Whether there was something for the connection's task that no edge tells of."""
    received = _read(connection)
    connection.received = received or b""
    return received is not None


def _read(connection: Connection) -> bytes | None:
    """What has come, empty at the end; None if nothing has."""
    try:
        received = os.read(connection.descriptor, RECEIVE_BYTES)
    except BlockingIOError:
        connection.unread = False
        return None
    except OSError:
        return b""
    connection.unread = not 0 < len(received) < RECEIVE_BYTES
    return received


def _sent(descriptor: int, data: bytes) -> int:
    """How much of `data` the kernel took at once, which is nearly always all of it."""
    try:
        return os.write(descriptor, data)
    except OSError:
        return 0  # Whoever sends the rest will know why.
