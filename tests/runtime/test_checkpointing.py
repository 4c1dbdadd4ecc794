"""When the journal is folded, and what happens when the checkpointer errs or dies; time is the test's own."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from segmentd.runtime import checkpointing as module
from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.children import ChildDiedError
from segmentd.storage.checkpointer import CheckpointerArguments, FoldReport
from tests.runtime.staged import Observer

ARGUMENTS = CheckpointerArguments(path="data", journal_map_bytes=1, index_map_bytes=1, changes_max=1)
SECONDS_MAX = 10.0
JOURNAL_BYTES = 1_000


class Depth:
    """A journal of which nothing but its depth is known."""

    def __init__(self) -> None:
        self.bytes_held = 0
        self.last_seq = 0


class Script:
    """Plays the checkpointer: folds all there is, except where the script says otherwise."""

    def __init__(self, journal: Depth) -> None:
        self.journal = journal
        self.answers: deque[FoldReport | ChildDiedError] = deque()
        self.silent = False
        """Whether it says nothing more once its answers are used up."""
        self.starts: list[float] = []
        self.folds: list[float] = []
        self.sweeps: list[float] = []
        self.swept: list[int] = []
        """What each sweep reports."""
        self.cannot_start = 0

    @asynccontextmanager
    async def process(self, _: CheckpointerArguments) -> AsyncIterator["Script"]:
        self.starts.append(trio.current_time())
        if self.cannot_start:
            self.cannot_start -= 1
            raise ChildDiedError("it cannot be started")
        yield self

    async def fold(self, seq: int) -> FoldReport:
        assert seq == self.journal.last_seq
        self.folds.append(trio.current_time())
        return await self.report()

    async def sweep(self) -> FoldReport:
        self.sweeps.append(trio.current_time())
        assert len(self.sweeps) < 1_000, "it spins"
        await trio.lowlevel.checkpoint()
        return FoldReport(swept=self.swept)

    async def report(self) -> FoldReport:
        await trio.lowlevel.checkpoint()
        if self.silent and not self.answers:
            await trio.sleep_forever()
        answer = self.answers.popleft() if self.answers else FoldReport(seq=self.journal.last_seq)
        if isinstance(answer, ChildDiedError):
            raise answer
        return answer


class World:
    def __init__(self) -> None:
        self.journal = Depth()
        self.script = Script(self.journal)
        self.observer = Observer()
        self.checkpointing = Checkpointing(
            self.journal, ARGUMENTS, self.observer, journal_bytes=JOURNAL_BYTES, seconds_max=SECONDS_MAX
        )

    def commit(self, size: int = 1) -> None:
        """One more record in the journal."""
        self.journal.last_seq += 1
        self.journal.bytes_held += size
        self.checkpointing.committed()


@pytest.fixture
async def world(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World()
    monkeypatch.setattr(module, "checkpointer_process", made.script.process)
    nursery.start_soon(made.checkpointing.run)
    await wait_all_tasks_blocked()
    yield made
    nursery.cancel_scope.cancel()


async def test_an_idle_journal_is_not_folded(autojump_clock: MockClock, world: World) -> None:
    await trio.sleep(1_000)
    assert world.script.folds == []


async def test_what_is_in_the_journal_is_folded_in_time_once(autojump_clock: MockClock, world: World) -> None:
    world.commit()
    await trio.sleep(SECONDS_MAX + 1)
    assert world.checkpointing.folded_seq == 1
    await trio.sleep(1_000)
    assert (len(world.script.folds), world.observer.checkpoints) == (1, 1)


async def test_a_deep_journal_is_folded_at_once(autojump_clock: MockClock, world: World) -> None:
    world.commit(JOURNAL_BYTES - 1)
    await wait_all_tasks_blocked()
    assert world.checkpointing.folded_seq == 0
    world.commit(1)
    await wait_all_tasks_blocked()
    assert world.checkpointing.folded_seq == 2
    assert trio.current_time() == world.script.folds[0]


async def test_a_barrier_waits_for_what_was_in_the_journal_and_for_no_more(
    autojump_clock: MockClock, world: World
) -> None:
    for _ in range(3):
        world.commit()
    world.script.answers.extend([FoldReport(seq=1, more=True), FoldReport(seq=3, more=True)])
    world.script.silent = True
    assert await world.checkpointing.barrier() == 3
    assert world.script.folds == [trio.current_time()]


async def test_a_barrier_over_an_empty_journal_does_not_wait(autojump_clock: MockClock, world: World) -> None:
    assert await world.checkpointing.barrier() == 0
    assert world.script.folds == []


async def test_many_barriers_share_a_fold(autojump_clock: MockClock, world: World) -> None:
    world.commit()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(world.checkpointing.barrier)
    assert world.checkpointing.folded_seq == 1
    assert len(world.script.folds) <= 2


async def test_a_barrier_during_a_fold_gets_what_that_fold_missed(autojump_clock: MockClock, world: World) -> None:
    world.commit()
    world.script.answers.append(FoldReport(seq=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.checkpointing.barrier)
        await trio.lowlevel.checkpoint()
        world.commit()
        assert await world.checkpointing.barrier() == 2


async def test_an_error_is_counted_and_the_fold_tried_again(autojump_clock: MockClock, world: World) -> None:
    world.script.answers.append(FoldReport(error="index: the LMDB map is full"))
    world.commit()
    await trio.sleep(SECONDS_MAX + 1)
    assert (world.observer.checkpoints_failed, world.checkpointing.folded_seq) == (1, 0)
    assert await world.checkpointing.barrier() == 1
    assert len(world.script.starts) == 1


async def test_a_checkpointer_that_dies_is_started_later_each_time(autojump_clock: MockClock, world: World) -> None:
    world.script.answers.append(ChildDiedError("killed"))

    world.commit(JOURNAL_BYTES)
    await wait_all_tasks_blocked()
    world.script.cannot_start = 8
    await trio.sleep(60)
    starts = world.script.starts[1:]
    pauses = [round(later - earlier, 6) for earlier, later in pairwise(starts)]
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert world.observer.checkpoints_failed == 9
    assert await world.checkpointing.barrier() == 1


async def test_a_barrier_survives_the_death_of_the_checkpointer(autojump_clock: MockClock, world: World) -> None:
    world.script.answers.extend([FoldReport(seq=1, more=True), ChildDiedError("killed")])
    world.commit()
    world.commit()
    assert await world.checkpointing.barrier() == 2
    assert len(world.script.starts) == 2
    # At once when it is started again, not at the next time that is due.
    assert trio.current_time() - world.script.folds[0] == pytest.approx(0.2)


async def test_progress_never_goes_back(autojump_clock: MockClock, world: World) -> None:
    world.checkpointing.folded_seq = 5
    world.journal.last_seq = 6
    world.script.answers.append(FoldReport(seq=4))
    await trio.sleep(SECONDS_MAX + 1)
    assert world.checkpointing.folded_seq == 5
    assert await world.checkpointing.barrier() == 6


async def test_a_process_that_cannot_be_made_is_a_death_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_process(*_: object, **__: object) -> trio.Process:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(trio.lowlevel, "open_process", no_process)
    with pytest.raises(ChildDiedError, match=r"cannot be started: .*Resource temporarily unavailable"):
        async with module.checkpointer_process(ARGUMENTS):
            raise AssertionError("never reached")


async def test_whoever_waits_at_a_barrier_does_not_wait_out_the_time_after_a_fold_that_failed(
    autojump_clock: MockClock, world: World
) -> None:
    world.commit()
    world.script.answers.extend([FoldReport(error="index: no space left on the disk")] * 3)
    start = trio.current_time()
    assert await world.checkpointing.barrier() == 1
    assert trio.current_time() - start == pytest.approx(0.6)
    assert world.observer.checkpoints_failed == 3


async def test_sweeping_that_makes_no_progress_is_tried_again_after_a_pause(
    autojump_clock: MockClock, world: World
) -> None:
    world.checkpointing.unswept.add(7)
    world.checkpointing.wake()
    await trio.sleep(10)
    assert 40 <= len(world.script.sweeps) <= 60
    world.script.swept = [7]
    await trio.sleep(1)
    assert world.checkpointing.unswept == set()
    ended = len(world.script.sweeps)
    await trio.sleep(100)
    assert len(world.script.sweeps) == ended


async def test_both_pipes_of_a_checkpointer_that_ended_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[trio.Process] = []
    open_process = trio.lowlevel.open_process

    async def stand_in(_: object, **options: int) -> trio.Process:
        started.append(await open_process(["cat"], stdin=options["stdin"], stdout=options["stdout"]))
        return started[0]

    monkeypatch.setattr(trio.lowlevel, "open_process", stand_in)
    async with module.checkpointer_process(ARGUMENTS):
        pass
    stdout = started[0].stdout
    assert stdout is not None
    with pytest.raises(trio.ClosedResourceError):
        await stdout.receive_some(1)
