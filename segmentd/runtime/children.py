"""Conversation with a child process: its arguments as JSON, its standard input as bytes, its answers as JSON lines.

At the end its input is closed, and it is killed if it still runs; whatever the children of this program do, that is
safe.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio

from segmentd.runtime.threads import translated

_READ_BYTES = 65_536
# An answer has at most some hundred short reasons in it.
_LINE_BYTES_MAX = 16 << 20
_END_SECONDS_MAX = 5.0

T = TypeVar("T")


class ChildDiedError(Exception):
    """The child went away, or answered nonsense, in the middle of the conversation."""


class ChildNotStartedError(ChildDiedError):
    """There was no child: no process, memory or descriptor to be had just now."""


class Child:
    """A running child."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def send(self, data: bytes) -> bool:
        """Give it bytes; False if it listens no more (its last answer says why)."""
        assert self._process.stdin is not None  # noqa: S101
        try:
            await self._process.stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def end_input(self) -> None:
        """There is no more for it."""
        assert self._process.stdin is not None  # noqa: S101
        await self._process.stdin.aclose()

    async def answer(self, kind: type[T]) -> T:
        """The next line. Raises ChildDiedError."""
        assert self._process.stdout is not None  # noqa: S101
        while b"\n" not in self._buffer:
            received = await self._process.stdout.receive_some(_READ_BYTES)
            if not received:
                raise ChildDiedError(f"it ended with status {await self._process.wait()}")
            self._buffer += received
            if len(self._buffer) > _LINE_BYTES_MAX:
                raise ChildDiedError("it answered too long a line")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError as error:
            raise ChildDiedError(f"it answered nonsense: {error}") from error


async def start_process(
    command: list[str], *, stdin: int, stdout: int = subprocess.PIPE, pass_fds: Sequence[int] = ()
) -> trio.Process:
    """Raises OSError: no process, thread, memory or descriptor to be had."""
    try:
        return await trio.lowlevel.open_process(command, stdin=stdin, stdout=stdout, pass_fds=pass_fds)
    except RuntimeError as error:
        raise translated(error) from error


@asynccontextmanager
async def child(module: str, arguments: msgspec.Struct, *, patient: bool = False) -> AsyncIterator[Child]:
    """Run `python -m module ARGUMENTS` for as long as the block runs. Raises ChildNotStartedError.

    patient: it has its time to end also where the block is left early, by an exception or cancelled.
    """
    command = [sys.executable, "-m", module, msgspec.json.encode(arguments).decode()]
    try:
        process = await start_process(command, stdin=subprocess.PIPE)
    except OSError as error:
        # As if it had died at once, so that callers try again.
        raise ChildNotStartedError(f"it cannot be started: {error.strerror}") from error
    end_seconds_max = _END_SECONDS_MAX if patient else 0.0
    try:
        yield Child(process)
        end_seconds_max = _END_SECONDS_MAX
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()  # type: ignore[union-attr]
            with trio.move_on_after(end_seconds_max):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdout.aclose()  # type: ignore[union-attr]
