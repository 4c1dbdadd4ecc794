"""A link: one connection to one server, kept up as long as it runs.

Owns the connection and the time that an answer may take. Commands are sent in batches and answered in order; whoever
calls is an actor of this package and never a request's own task, because what is given up half way costs the
connection. Never routes, never repeats.

Of coredis only the connection is used (parsing, TLS, authentication, pipelining): its pools and cluster client decide
by themselves what is repeated where, and here that is what safety rests on.
"""

import logging
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import anyio
import structlog
import trio
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import BusyLoadingError, ConnectionError  # the library's own

from segmentd.runtime.groups import first_of

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# The library logs an error for each attempt to connect to a server that does not answer; here that is a `problem`.
logging.getLogger("coredis").setLevel(logging.CRITICAL)

_PAUSE_SECONDS_FIRST: Final = 0.05
_PAUSE_SECONDS_MAX: Final = 1.0

Command = tuple[bytes, ...]
Answers = list[Any]
"""One for each command; an exception (coredis.exceptions.RedisError) where the server refused."""


class LinkDownError(Exception):
    """There is no connection, or it was lost, or the answer took too long: the outcome is unknown."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class LinkSettings(NamedTuple):
    """How to connect, and how long to wait."""

    user: str | None
    password: str | None
    tls: ssl.SSLContext | None
    connect_seconds_max: float
    answer_seconds_max: float


class _Sent(NamedTuple):
    """A command as the library sends it in a batch; one at a time costs an event and a time-out each."""

    name: bytes
    serialized_arguments: tuple[bytes, ...]
    decode: bool = False


class Link:
    """`run` as a task; `call` from actors."""

    def __init__(self, address: Address, settings: LinkSettings) -> None:
        self.address = address
        self._settings = settings
        self._connection: TCPConnection | None = None
        self._changed = trio.Event()
        self.problem = ""
        """Why the latest attempt to connect failed, empty if it did not."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and self._connection.usable

    async def run(self) -> None:
        """Connect, again and again, until cancelled."""
        pause = _PAUSE_SECONDS_FIRST
        while True:
            connection = self._new_connection()
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(connection.run)
                    self.problem = ""
                    self._set(connection)
                    pause = _PAUSE_SECONDS_FIRST
            except* Exception as group:  # noqa: BLE001
                # Whatever a server or the library comes up with costs the connection, and nothing else.
                self.problem = _told(first_of(group))
                log.debug("no connection to a server of the cluster", server=str(self.address), reason=self.problem)
            finally:
                self._set(None)
            await trio.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)

    async def call(self, commands: Sequence[Command], *, seconds_max: float | None = None) -> Answers:
        """The answers, in order. seconds_max: instead of the setting. Raises LinkDownError."""
        connection = await self._connected()
        limit = self._settings.answer_seconds_max if seconds_max is None else seconds_max
        try:
            batch: Sequence[Any] = [_Sent(command[0], command[1:]) for command in commands]
            with trio.move_on_after(limit):
                answers: Answers = await connection.create_request_batch(batch, timeout=2 * limit)
                if not any(map(_is_loss, answers)):
                    return answers
        except Exception as error:
            # The library has errors of its own, of anyio and of Python here; after each the outcome is unknown.
            connection.invalidate("its state is unknown")
            raise LinkDownError(f"{self.address}: {_told(error)}") from error
        # What comes too late must not be taken for the answer to something else.
        connection.invalidate("an answer took too long")
        raise LinkDownError(f"{self.address}: no answer within {limit:g} s, or the connection was lost")

    async def _connected(self) -> TCPConnection:
        with trio.move_on_after(self._settings.connect_seconds_max):
            while self._connection is None or not self._connection.usable:
                await self._changed.wait()
            return self._connection
        raise LinkDownError(f"{self.address}: no connection ({self.problem or 'no answer'})")

    def _set(self, connection: TCPConnection | None) -> None:
        self._connection = connection
        self._changed.set()
        self._changed = trio.Event()

    def _new_connection(self) -> TCPConnection:
        settings = self._settings
        return TCPConnection(
            TCPLocation(*self.address),
            connect_timeout=settings.connect_seconds_max,
            stream_timeout=settings.answer_seconds_max,
            username=settings.user,
            password=settings.password,
            ssl_context=settings.tls,
            socket_keepalive=True,
        )


def _is_loss(answer: Any) -> bool:
    """Whether this stands for an answer that never came; a server that is loading has an error of this kind."""
    return isinstance(answer, ConnectionError | TimeoutError) and not isinstance(answer, BusyLoadingError)


def _told(error: Exception) -> str:
    """The reason as far as the library knows one: it wraps what the system said."""
    cause = error.__cause__ or error
    if isinstance(cause, anyio.BrokenResourceError | anyio.EndOfStream):
        return "the server has ended the connection, as it does where only one side speaks TLS ([store] tls)"
    return str(cause) or type(cause).__name__
