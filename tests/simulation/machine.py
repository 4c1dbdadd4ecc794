"""The machine that the simulated server runs on: its clock, its threads, its randomness, its disk, its processes.

Everything in Python through which chance or time gets into the runtime is replaced while a simulation runs, and put
back after it. A thread is a call on the loop, at a moment of virtual time; who calls waits as long before and after as
chance says. That is exact where the runtime hands a whole operation to a thread and shares nothing with it meanwhile,
as it does; it does not show races between threads.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar
from unittest import mock

import lmdb
import structlog
import trio
import trio.testing

from segmentd.runtime.committhread import CommitThread
from tests.simulation.chance import Chance, Trace
from tests.simulation.children import Children
from tests.simulation.disk import Disk
from tests.simulation.lmdbs import Environments

T = TypeVar("T")

EPOCH_SECONDS: Final = 1_790_000_000
"""When the virtual time begins."""
_SLOW_SECONDS: Final = (0.5, 2.0, 20.0)


class Machine:
    """One of them a run."""

    def __init__(self, seed: int, place: Path, trace: Trace) -> None:
        """place: an empty folder for everything that is written."""
        self.seed = seed
        self.place = place
        self.chance = Chance(seed)
        self.disk = Disk(self.chance)
        self.environments = Environments(self.disk, self.chance)
        self.children = Children(self.chance)
        self.clock = trio.testing.MockClock(autojump_threshold=0)
        self.ahead_seconds = 0.0
        self._trace = trace
        self._names = Random(seed)

    def seconds(self) -> float:
        """Virtual time since the run began."""
        return self.clock.current_time()

    def now(self) -> float:
        """In the place of `time.time`."""
        return EPOCH_SECONDS + self.ahead_seconds + self.seconds()

    def set_clock(self) -> None:
        """Perhaps somebody sets the clock ahead. Never back: what that does to whom is forgotten is not promised."""
        if self.chance.strikes("clock_set"):
            self.ahead_seconds += self.chance.pick((0.5, 2.0, 3_600.0, 86_400.0))

    def now_ns(self) -> int:
        """In the place of `time.time_ns`."""
        return self.now_ms() * 1_000_000

    def now_ms(self) -> int:
        """Virtual time of the day."""
        return int(self.now() * 1000)

    def say(self, *words: Any) -> None:
        """Note that something happened."""
        self._trace.say(self.seconds(), *words)

    async def run_in_thread(
        self,
        act: Callable[..., T],
        *arguments: Any,
        limiter: trio.CapacityLimiter | None = None,
        **_: Any,
    ) -> T:
        """In the place of `trio.to_thread.run_sync`; as there, it runs to its end once it has begun."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.chance.strikes("thread_not_started"):
            raise RuntimeError("can't start new thread")
        if limiter is None:
            return await self._run(act, *arguments)
        async with limiter:
            return await self._run(act, *arguments)

    async def run_in_its_thread(self, act: Callable[[], T]) -> T:
        """In the place of `CommitThread.run`, whose thread is there already."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._run(act)

    async def _run(self, act: Callable[..., T], *arguments: Any) -> T:
        with trio.CancelScope(shield=True):
            slow = self.chance.pick(_SLOW_SECONDS) if self.chance.strikes("slow_sync") else 0.0
            await trio.sleep(self.chance.delay() + slow)
            done: T | None = None
            failure: Exception | None = None
            try:
                done = act(*arguments)
            except Exception as error:  # noqa: BLE001  # raised again where it is waited for, a little later
                failure = error
            await trio.sleep(self.chance.delay())
        if failure is not None:
            raise failure
        return done  # type: ignore[return-value]  # act gives a T

    @contextmanager
    def instead_of_this_one(self) -> Iterator[None]:
        """Have the program run on this machine."""
        scheduler = trio._core._run
        state, before = scheduler._r.getstate(), structlog.get_config()
        scheduler._r.seed(self.seed)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), processors=[_say_nothing])
        names = self._names
        with (
            mock.patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            mock.patch.object(trio.to_thread, "run_sync", self.run_in_thread),
            mock.patch.object(CommitThread, "start"),
            mock.patch.object(CommitThread, "run", lambda _thread, act: self.run_in_its_thread(act)),
            mock.patch.object(trio.lowlevel, "open_process", self.children.open_process),
            mock.patch.object(time, "time", self.now),
            mock.patch.object(time, "time_ns", self.now_ns),
            mock.patch.object(secrets, "token_hex", lambda count: names.randbytes(count).hex()),
            mock.patch.object(secrets, "token_bytes", names.randbytes),
            mock.patch.object(os, "fsync", self.disk.fsync),
            mock.patch.object(lmdb, "open", self.environments.open),
        ):
            try:
                yield
            finally:
                scheduler._r.setstate(state)
                structlog.configure(**before)
                self.environments.close_all()
                self.disk.end()


def _say_nothing(*_: object) -> str:
    """In the place of the log: a thousand runs would fill the screen with their faults."""
    raise structlog.DropEvent
