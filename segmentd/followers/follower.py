"""One follower as its owner sees it: a child process and the conversation with it.

Owns process and channel of one follower. Never decides whether there shall be another one (`supervision.py` does).
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog
import trio

from segmentd.followers.channel import Channel, ChannelEndedError, ChannelFullError, pair
from segmentd.followers.messages import Begin, Handed, Leave, Message, Ready, Reopen, Reopened, Scrape, Scraped
from segmentd.followers.tally import Tally
from segmentd.processmetrics import Family
from segmentd.runtime.children import start_process

# Reading the store's audiences and segments takes seconds at most; a machine that is overloaded gets more.
START_SECONDS_MAX: Final = 120.0
_END_SECONDS_MAX: Final = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Owner(Protocol):
    """Who is told of what a follower says. Plain calls that do not wait."""

    def taken(self, connection: Handed, descriptor: int) -> None:
        """A connection to serve; the descriptor is the callee's from now on."""

    def lost_on_its_way(self) -> None:
        """A connection was handed over and did not arrive; its client meets the end of it."""

    def became_ready(self, follower: Follower) -> None:
        """It accepts connections."""

    def counted(self, follower: Follower, families: list[Family]) -> None:
        """Its metrics as of now."""


class Follower:
    """A running follower."""

    def __init__(
        self, name: str, slot: int, process: trio.Process, channel: Channel, tally: Tally, owner: Owner
    ) -> None:
        self._owner = owner
        self.name: Final = name
        self.slot: Final = slot
        self._process = process
        self._channel = channel
        self._tally = tally
        self._scope = trio.CancelScope()
        self._changed = trio.Event()
        self.ready = False
        """Whether it accepts connections."""
        self.leaving = False
        """Whether it was told to end."""
        self.ended = False
        self.heard_at = trio.current_time()
        """When it last said anything."""
        self._generation: str | None = None
        self._asked = 0
        self._answered = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def load(self) -> int:
        """How many connections it has, those on their way included."""
        return self._tally.load(self.slot)

    def hand_over(self, connection: Handed, descriptor: int) -> bool:
        """Give it a connection now; False if it cannot take it, and the caller still has the only one."""
        try:
            sent = self._channel.send_now(connection, descriptor)
        except ChannelEndedError:
            return False
        if sent:
            self._tally.sent(self.slot)
        return sent

    async def leave(self, *, stopping: bool, seconds_max: float) -> None:
        """Have it end, see `Leave`; returns when it has ended. It is killed after `seconds_max`."""
        self.leaving = True
        self.ready = False
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds_max)
        await self._say(Leave(stopping))
        await self.gone()

    async def reopen(self, generation: str, seconds_max: float) -> bool:
        """Have it leave the files of older generations; False if it has not said in time that it did, or has ended."""
        await self._say(Reopen(generation))
        with trio.move_on_after(seconds_max):
            await self._until(lambda: self._generation == generation)
        return self._generation == generation and not self.ended

    async def scrape(self, seconds_max: float) -> None:
        """Have it tell what it has counted; returns when it has, or when the time is over."""
        self._asked += 1
        number = self._asked
        await self._say(Scrape(number))
        with trio.move_on_after(seconds_max):
            await self._until(lambda: self._answered >= number)

    async def gone(self) -> None:
        """Returns when it has ended."""
        await self._until(lambda: False)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def converse(self, begin: Begin) -> None:
        """Hear what it says until it has ended, or its time is over."""
        with self._scope:
            try:
                await self._channel.send(begin)
                self._scope.deadline = trio.current_time() + START_SECONDS_MAX
                while True:
                    message, descriptor = await self._channel.receive()
                    self._hear(message, descriptor)
            except (ChannelEndedError, ChannelFullError):
                pass

    def _hear(self, message: Message, descriptor: int | None) -> None:
        self.heard_at = trio.current_time()
        match message:
            case Handed() if descriptor is not None:
                self._tally.received(self.slot)
                self._owner.taken(message, descriptor)
            case Handed():
                # The kernel had no descriptor to give; the client meets a closed connection.
                self._tally.received(self.slot)
                self._owner.lost_on_its_way()
                log.error("a connection was lost on its way", follower=self.name)
            case Ready():
                self._scope.deadline = float("inf")
                self.ready = not self.leaving
                self._owner.became_ready(self)
            case Reopened():
                self._generation = message.generation
            case Scraped():
                self._owner.counted(self, message.families)
                self._answered = max(self._answered, message.number)
            case _:
                log.error("a follower said what only its owner says", follower=self.name, message=repr(message)[:200])
        self._tell()

    async def _say(self, message: Message) -> None:
        try:
            await self._channel.send(message)
        except (ChannelEndedError, ChannelFullError) as error:
            log.warning("a follower does not listen", follower=self.name, reason=str(error))

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` or the end of the follower."""
        while not self.ended and not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def end(self) -> int:
        """Wait for its end, killing it where that takes too long. Returns its exit status."""
        self.ready = False
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_END_SECONDS_MAX):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
            status = await self._process.wait()
            self._channel.close()
            self.ended = True
            self._tell()
        return status


@asynccontextmanager
async def started(
    name: str, slot: int, tally: Tally, listener: socket.socket, visible: int, owner: Owner
) -> AsyncIterator[Follower]:
    """Run a follower as long as the block. Raises OSError.

    There is no PR_SET_PDEATHSIG: it tells of the end of the thread that started the child, and Trio starts processes
    from threads that come and go. The end of the channel tells of the owner's end just as well.
    """
    ours, theirs = pair()
    with theirs:
        descriptors = (theirs.fileno(), listener.fileno(), visible, tally.descriptor)
        command = [sys.executable, "-m", "segmentd.follower", *map(str, descriptors)]
        try:
            process = await start_process(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=descriptors
            )
        except OSError:
            ours.close()
            raise
    follower = Follower(name, slot, process, Channel(ours), tally, owner)
    try:
        yield follower
    finally:
        if not follower.ended:
            follower.kill()
            await follower.end()
