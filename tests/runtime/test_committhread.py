"""The committer's thread: what it gives back, what it raises, and that a commit is never given up."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from unittest import mock

import pytest
import trio

from segmentd.runtime.committhread import CommitThread
from segmentd.storage.errors import StoreFailureError


@pytest.fixture
def thread() -> Iterator[CommitThread[object]]:
    made: CommitThread[object] = CommitThread()
    made.start()
    yield made
    made.close()


async def test_it_gives_back_what_was_done_one_after_the_other_in_one_thread(thread: CommitThread[object]) -> None:
    names = {await thread.run(lambda: threading.current_thread().name) for _ in range(20)}
    assert names == {"commits"}
    assert [await thread.run(lambda number=number: number) for number in range(5)] == list(range(5))  # type: ignore[misc]


async def test_what_is_raised_there_is_raised_here_and_the_next_work_is_done(thread: CommitThread[object]) -> None:
    def fail() -> object:
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        await thread.run(fail)
    assert await thread.run(lambda: "fine") == "fine"


async def test_the_loop_goes_on_meanwhile_and_a_cancelled_wait_ends_with_the_work(thread: CommitThread[object]) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        may_end.wait()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, slow)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        assert not ended.is_set()
        may_end.set()
    assert ended.is_set()


async def test_nothing_begins_for_whoever_is_cancelled_already(thread: CommitThread[object]) -> None:
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.run(lambda: done.append(1))
    assert done == []


async def test_closing_ends_the_thread_and_needs_none(thread: CommitThread[object]) -> None:
    await thread.run(lambda: None)
    before = threading.active_count()
    thread.close()
    assert threading.active_count() == before - 1
    thread.close()


@pytest.mark.parametrize(
    ("name", "error"),
    [("threading.Thread.start", RuntimeError("can't start new thread")), ("os.eventfd", OSError(errno.EMFILE, "x"))],
)
def test_without_a_thread_the_store_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    monkeypatch.setattr(name, mock.Mock(side_effect=error))
    with pytest.raises(StoreFailureError, match="the thread that commits cannot be started"):
        CommitThread[object]().start()


@pytest.fixture
def heeded() -> Iterator[signal.Signals]:
    """A signal that Python has a handler for, which is what makes it interrupt system calls."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


async def test_a_signal_that_the_kernel_gives_to_the_thread_does_not_end_it(
    thread: CommitThread[object], heeded: signal.Signals
) -> None:
    ident = await thread.run(threading.get_ident)
    assert isinstance(ident, int)
    for number in range(20):
        signal.pthread_kill(ident, heeded)
        await trio.sleep(0.001)
        with trio.fail_after(20):
            assert await thread.run(lambda: number) == number  # noqa: B023
