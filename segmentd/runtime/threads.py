"""Work that blocks, in a thread of Trio's pool. Where there is no thread to be had, that is trouble of the machine.

A disk that fails and a machine out of threads are the same to whoever had something to write: it was not done, its
client is told so, and it is tried again. So both are an OSError, and neither ends the service.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, TypeVarTuple, Unpack

import structlog
import trio

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Descriptors, memory, threads and permissions come back; a file that is gone or cannot be read does not.
_PASSES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EACCES, errno.EPERM})
_AGAIN_SECONDS_FIRST: Final = 0.2
_AGAIN_SECONDS_MAX: Final = 10.0

_NOT_STARTED: Final = "can't start new thread"
"""Python has no class of its own for this (Modules/_threadmodule.c)."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(act: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
    """What `act` gives or raises. Once begun it runs to its end. Raises OSError (EAGAIN): there was no thread."""
    try:
        return await trio.to_thread.run_sync(act, *arguments)
    except RuntimeError as error:
        raise translated(error) from error


def translated(error: RuntimeError) -> Exception:
    """The OSError that it is, where Python could not start a thread; else the error itself."""
    if str(error) == _NOT_STARTED:
        return OSError(errno.EAGAIN, "no thread can be started")
    return error


async def patiently(act: Callable[[], Awaitable[T]], what: str) -> T:
    """`act`, again and again while it is the machine that has nothing to do it with. Raises any other OSError."""
    pause = _AGAIN_SECONDS_FIRST
    while True:
        try:
            return await act()
        except OSError as error:
            if error.errno not in _PASSES:
                raise
            log.error(f"{what} cannot go on now; trying again", reason=str(error), seconds=pause)
        await trio.sleep(pause)
        pause = min(2 * pause, _AGAIN_SECONDS_MAX)
