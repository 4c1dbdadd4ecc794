"""The thread that commits: one, for as long as the store runs.

A hand-over to it and back is a byte each way through two event descriptors: a quarter of the processor time that
`trio.to_thread.run_sync` takes, which serves anybody, from a pool, with limits and context. Never decides what is
done; one thing at a time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import trio

from segmentd.storage.errors import StoreFailureError

T = TypeVar("T")

_FAULTS: Final = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})


class CommitThread(Generic[T]):
    """`start` it first; `close` it when nothing is under way."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._act: Callable[[], T] | None = None
        self._done: T | None = None
        self._failure: BaseException | None = None
        self._asked = self._answered = -1

    async def run(self, act: Callable[[], T]) -> T:
        """What `act` gives or raises. Once begun it is never given up: its outcome is known when this returns."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._act = act
        os.eventfd_write(self._asked, 1)
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._answered)
        os.eventfd_read(self._answered)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._done  # type: ignore[return-value]  # act gives a T

    def close(self) -> None:
        """End the thread."""
        if self._thread is None:
            return
        self._act = None
        os.eventfd_write(self._asked, 1)
        self._thread.join()
        self._thread = None
        os.close(self._asked)
        os.close(self._answered)

    def start(self) -> None:
        """Before anything is promised: a machine that has no thread left at the first commit must not end the service.

        Raises StoreFailureError.
        """
        try:
            self._asked = os.eventfd(0, os.EFD_CLOEXEC)
            self._answered = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            # A daemon: where the loop has died over a fault, the process must still end.
            thread = threading.Thread(target=self._work, name="commits", daemon=True)
            thread.start()
        except (OSError, RuntimeError) as error:
            raise StoreFailureError(f"the thread that commits cannot be started: {error}") from error
        self._thread = thread

    def _work(self) -> None:
        # Signals are for the loop's thread. Here one would interrupt a read or a sync, and end the thread over it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        while True:
            os.eventfd_read(self._asked)
            if self._act is None:
                return
            try:
                self._done = self._act()
            except BaseException as failure:  # noqa: BLE001  # raised where it is waited for
                self._failure = failure
            os.eventfd_write(self._answered, 1)
