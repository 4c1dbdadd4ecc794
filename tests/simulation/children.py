"""The child processes of the server, inside the simulation: the same code, each command one step in virtual time.

What a child does between two lines that it reads or writes is one step, as it is for whoever waits for its answer. Any
step may be the last one of the child.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec
import trio
from trio.testing import memory_stream_one_way_pair

from segmentd.storage.checkpointer import CheckpointerArguments, FoldReport, _step
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder
from segmentd.storage.importscan import ScanArguments, ScanReport, scan
from segmentd.storage.scrubber import ScrubberArguments, ScrubReport, _Scrub
from segmentd.storage.stager import StagerArguments, StagingReport, stage
from tests.simulation.chance import Chance

_KILLED: Final = -9
_FAILED: Final = 1
# What opening and reading a store that is just being replaced may raise; a real child ends with a traceback.
_ENDS_A_CHILD: Final = (StorageError, OSError, lmdb.Error)


class DiedError(Exception):
    """The child is killed here."""


class Step:
    """How a child takes a step: some time, perhaps a death, the work, perhaps a death."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    async def __call__(self, work: Callable[[], Any]) -> Any:
        await trio.sleep(self._chance.delay())
        if self._chance.strikes("child_died_before"):
            raise DiedError
        done = work()
        await trio.sleep(self._chance.delay())
        if self._chance.strikes("child_died_after"):
            raise DiedError
        return done


class SimulatedProcess:
    """As much of `trio.Process` as the server uses."""

    def __init__(self, chance: Chance) -> None:
        self._status = _KILLED
        self.stdin, self.child_stdin = memory_stream_one_way_pair()
        self.child_stdout, self.stdout = memory_stream_one_way_pair()
        self.step = Step(chance)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def returncode(self) -> int | None:
        """The status that it ended with, None while it runs."""
        return self._status if self._ended.is_set() else None

    async def wait(self) -> int:
        """The status that it ended with."""
        await self._ended.wait()
        return self._status

    def kill(self) -> None:
        """As SIGKILL."""
        self._scope.cancel()

    async def run(self, main: "Main", argument: str) -> None:
        """The life of the child."""
        try:
            with self._scope:
                await main(argument, self)
                self._status = 0
        except (DiedError, trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except _ENDS_A_CHILD:
            self._status = _FAILED
        finally:
            # Also when the life that it belongs to ends.
            self.child_stdin.close()
            self.child_stdout.close()
            self._ended.set()

    async def lines(self) -> AsyncIterator[str]:
        """What the parent writes."""
        buffer = b""
        while received := await self.child_stdin.receive_some():
            buffer += received
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                yield line.decode()

    async def answer(self, report: msgspec.Struct) -> None:
        """One line for the parent."""
        await self.child_stdout.send_all(msgspec.json.encode(report) + b"\n")


Main = Callable[[str, SimulatedProcess], Awaitable[None]]


async def _checkpointer(argument: str, process: SimulatedProcess) -> None:
    arguments = msgspec.json.decode(argument, type=CheckpointerArguments)
    folder = _folder(arguments)
    journal, index = folder.open_journal(read_only=True), folder.open_index()
    try:
        async for line in process.lines():
            more = True
            while more:
                began = trio.current_time()
                report: FoldReport = await process.step(
                    partial(_step, line.split(), journal, index, arguments.changes_max)
                )
                report = msgspec.structs.replace(report, seconds=trio.current_time() - began)
                more = report.more and not line.startswith("sweep")
                await process.answer(report)
    finally:
        index.close()
        journal.close()


async def _scrubber(argument: str, process: SimulatedProcess) -> None:
    scrub = _Scrub(msgspec.json.decode(argument, type=ScrubberArguments))
    commands = {"copy": scrub.copy, "fold": scrub.fold, "finish": scrub.finish}

    def report(line: str) -> ScrubReport:
        try:
            return ScrubReport(seq=commands[line]())
        except (StorageError, OSError) as error:
            return ScrubReport(error=str(error))

    try:
        async for line in process.lines():
            await process.answer(await process.step(partial(report, line)))
    finally:
        scrub._journal.close()
        if scrub._index is not None:
            scrub._index.close()


async def _importscan(argument: str, process: SimulatedProcess) -> None:
    def report() -> ScanReport:
        try:
            return scan(msgspec.json.decode(argument, type=ScanArguments))
        except _ENDS_A_CHILD as error:
            return ScanReport(error=str(error))

    await process.answer(await process.step(report))


async def _stager(argument: str, process: SimulatedProcess) -> None:
    arguments = msgspec.json.decode(argument, type=StagerArguments)
    content = b""
    while received := await process.child_stdin.receive_some():
        content += received
    reports: list[StagingReport] = []
    await process.step(lambda: stage(arguments, BytesIO(content).read, reports.append))
    await process.answer(reports[-1])


MAINS: Final[dict[str, Main]] = {
    "segmentd.storage.checkpointer": _checkpointer,
    "segmentd.storage.scrubber": _scrubber,
    "segmentd.storage.importscan": _importscan,
    "segmentd.storage.stager": _stager,
}


class Children:
    """In the place of `trio.lowlevel.open_process`."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self.nursery: trio.Nursery | None = None
        """Where they live; it is cancelled with the life that they belong to."""

    async def open_process(self, command: list[str], **_options: Any) -> SimulatedProcess:
        """command: [python, "-m", module, argument]. Raises OSError."""
        await trio.lowlevel.checkpoint()
        if self._chance.strikes("child_not_started"):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        module, argument = command[2:]
        process = SimulatedProcess(self._chance)
        assert self.nursery is not None
        self.nursery.start_soon(process.run, MAINS[module], argument)
        return process


def _folder(arguments: CheckpointerArguments) -> DataFolder:
    return DataFolder(
        Path(arguments.path),
        journal_map_bytes=arguments.journal_map_bytes,
        index_map_bytes=arguments.index_map_bytes,
        create=False,
        lock=False,
    )
