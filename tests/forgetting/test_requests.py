"""A request to forget is complete only when no staged list and no old file can hold the identifier."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.forgetnotes import FolderNotes
from segmentd.runtime.forgetting import Forgetting
from segmentd.runtime.scrubbing import ScrubFailedError
from segmentd.storage.errors import StoreFailureError
from segmentd.storage.forgetjobs import ForgetJobs


class Store:
    """Notes what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.commits = trio.Event()
        self.commits.set()
        self.failed: str | None = None
        """Why nothing is written any more."""
        self.forget_fails: Exception | None = None
        self.scrub_fails: Exception | None = None

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        await self.commits.wait()
        if self.forget_fails is not None:
            raise self.forget_fails
        self.told.append(f"forget {len(keys)} at {now_ms}")

    async def scrub(self) -> None:
        self.told.append("scrub")
        if self.scrub_fails is not None:
            raise self.scrub_fails

    def failure(self) -> str | None:
        return self.failed


def forgetting(store: Store, data: Path) -> Forgetting:
    return Forgetting(store, FolderNotes(data), scrub_seconds_min=0.01, jobs_kept_max=2, retry_after_seconds=1)


def names_somebody(folder: Path) -> bool:
    return any(b"somebody" in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def jobs_on_disk(folder: Path) -> list[Path]:
    return list(folder.rglob("*.json"))


async def test_it_waits_for_lists_that_are_staged_and_scrubs_after_them(tmp_path: Path) -> None:
    staged = tmp_path / "imports" / "job" / "staged"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"somebody")
    store = Store()
    requests = forgetting(store, tmp_path)
    await requests.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        job = await requests.request("gdpr", [b"\0somebody"], 7)
        await trio.sleep(0.2)
        found = requests.get(job.id)
        assert found is not None
        assert (found.state, store.told) == ("in_progress", ["forget 1 at 7"])
        staged.unlink()
        with trio.fail_after(30):
            while "scrub" not in store.told:  # noqa: ASYNC110  # the store is a stand-in
                await trio.sleep(0.05)
        await trio.sleep(0.2)
        done = requests.get(job.id)
        assert done is not None
        assert done.state == "completed"
        nursery.cancel_scope.cancel()


async def test_what_was_open_is_completed_after_a_start_and_never_had_an_identifier_on_disk(tmp_path: Path) -> None:
    job = await forgetting(Store(), tmp_path).request("ccpa", [b"\0somebody"], 7)
    assert not names_somebody(tmp_path)
    store = Store()
    again = forgetting(store, tmp_path)
    await again.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again.run)
        with trio.fail_after(30):
            while "scrub" not in store.told:  # noqa: ASYNC110  # the store is a stand-in
                await trio.sleep(0.02)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    third = forgetting(Store(), tmp_path)
    await third.load()
    found = third.get(job.id)
    assert found is not None
    assert (found.state, store.told) == ("completed", ["scrub"])


async def test_a_request_that_was_carried_out_and_could_not_be_noted_is_cleaned_up_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    requests = forgetting(store, tmp_path)
    write = ForgetJobs.write

    def full_at_the_second(files: ForgetJobs, job: ForgetJob) -> None:
        if job.state == "in_progress":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files, job)

    monkeypatch.setattr(ForgetJobs, "write", full_at_the_second)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        await requests.request("gdpr", [b"\0somebody"], 7)
    assert len(jobs_on_disk(tmp_path)) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        with trio.fail_after(30):
            while jobs_on_disk(tmp_path):  # noqa: ASYNC110  # nobody is told
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert store.told == ["forget 1 at 7", "scrub"]


async def completed(requests: Forgetting, data: Path) -> None:
    """Run until no request is open."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        with trio.fail_after(30):
            while any(job.state != "completed" for job in ForgetJobs(data).load()):  # noqa: ASYNC110  # nobody is told
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_request_whose_client_has_gone_is_carried_out_and_scrubbed_without_a_restart(tmp_path: Path) -> None:
    store = Store()
    store.commits = trio.Event()
    requests = forgetting(store, tmp_path)
    async with trio.open_nursery() as client:
        client.start_soon(requests.request, "gdpr", [b"\0somebody"], 7)
        while not jobs_on_disk(tmp_path):  # noqa: ASYNC110  # nobody is told
            await trio.sleep(0.01)
        client.cancel_scope.cancel()
        store.commits.set()
    assert store.told == ["forget 1 at 7"]
    await completed(requests, tmp_path)
    assert store.told == ["forget 1 at 7", "scrub"]


async def test_a_request_whose_commit_has_an_unknown_outcome_is_cleaned_up_by_the_next_start(tmp_path: Path) -> None:
    store = Store()
    store.failed, store.forget_fails = "the disk is gone", StoreUnavailable("Writing has stopped.", 1)
    requests = forgetting(store, tmp_path)
    with pytest.raises(StoreUnavailable, match="Writing has stopped"):
        await requests.request("gdpr", [b"\0somebody"], 7)
    assert len(jobs_on_disk(tmp_path)) == 1
    restarted = Store()
    again = forgetting(restarted, tmp_path)
    await again.load()
    await completed(again, tmp_path)
    assert (restarted.told, jobs_on_disk(tmp_path)) == (["scrub"], [])


async def test_a_store_that_never_answers_is_no_reason_to_wait_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = Store()
    store.commits = trio.Event()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await forgetting(store, tmp_path).request("gdpr", [b"\0somebody"], 7)
    assert len(jobs_on_disk(tmp_path)) == 1, "it may have been carried out"


async def test_a_refused_request_leaves_nothing(tmp_path: Path) -> None:
    store = Store()
    store.forget_fails = StoreUnavailable("The store is full.", 1)
    with pytest.raises(StoreUnavailable, match="is full"):
        await forgetting(store, tmp_path).request("gdpr", [b"\0somebody"], 7)
    assert jobs_on_disk(tmp_path) == []


async def test_a_scrub_that_goes_on_failing_is_told_once_and_seen_and_tried_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_the_loop(act: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return act(*arguments)

    # The clock would jump over a thread that is slow.
    monkeypatch.setattr(trio.to_thread, "run_sync", on_the_loop)
    store = Store()
    store.scrub_fails = ScrubFailedError("no room for a second index")
    requests = forgetting(store, tmp_path)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.run)
            await requests.request("gdpr", [b"\0somebody"], 7)
            await trio.sleep(600)
            tries = store.told.count("scrub")
            assert 8 <= tries <= 20, "ever more rarely, and at least each minute"
            assert requests.problem == "no room for a second index"
            store.scrub_fails = OSError(errno.ENOSPC, "No space left on device")
            await trio.sleep(120)
            store.scrub_fails = None
            await trio.sleep(120)
            nursery.cancel_scope.cancel()
    assert requests.problem is None
    assert [log["reason"] for log in logs if log["log_level"] == "error"] == [
        "no room for a second index",
        "[Errno 28] No space left on device",
    ]
    assert [job.state for job in ForgetJobs(tmp_path).load()] == ["completed"]


async def test_after_a_failure_that_only_a_restart_helps_it_says_so_once_and_waits(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = Store()
    requests = forgetting(store, tmp_path)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.run)
            await requests.request("gdpr", [b"\0somebody"], 7)
            store.failed, store.scrub_fails = "a swap failed", StoreFailureError("a swap failed")
            await trio.sleep(600)
            nursery.cancel_scope.cancel()
    assert store.told.count("scrub") == 1
    assert requests.problem == "It goes on after a restart: a swap failed"
    assert [log["log_level"] for log in logs] == ["error"]


class SharedNotes(FolderNotes):
    """Notes that every node can look at; each call takes a moment, and fails while `refusal` says so."""

    def __init__(self, ours: Path, theirs: Path) -> None:
        super().__init__(ours)
        self._theirs = ForgetJobs(theirs)
        self.refusal: StoreUnavailable | None = None

    async def write(self, job: ForgetJob) -> None:
        if self.refusal is not None:
            raise self.refusal
        await super().write(job)

    async def elsewhere(self, request_id: str) -> ForgetJob | None:
        await trio.lowlevel.checkpoint()
        return next((job for job in self._theirs.load() if job.id == request_id), None)


def sharing(store: Store, ours: Path, theirs: Path) -> tuple[Forgetting, SharedNotes]:
    ours.mkdir(exist_ok=True)
    notes = SharedNotes(ours, theirs)
    return Forgetting(store, notes, scrub_seconds_min=0.01, jobs_kept_max=2, retry_after_seconds=1), notes


async def test_every_node_tells_how_far_a_request_is_and_one_completes_it(tmp_path: Path) -> None:
    stores = Store(), Store()
    here, _ = sharing(stores[0], tmp_path / "a", tmp_path / "b")
    there, _ = sharing(stores[1], tmp_path / "b", tmp_path / "a")
    job = await here.request("gdpr", [b"\0somebody"], 7)
    for forgetting in (here, there):
        found = await forgetting.find(job.id)
        assert found is not None
        assert (found.job, found.problem) == (job, None)
        assert await forgetting.find("nothing") is None
    stores[0].scrub_fails = ScrubFailedError("no room")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        nursery.start_soon(there.run)
        with trio.fail_after(30):
            while here.problem is None:  # noqa: ASYNC110  # the store is a stand-in
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    seen = [await forgetting.find(job.id) for forgetting in (here, there)]
    assert [found and found.problem for found in seen] == ["no room", None]
    assert stores[1].told == [], "it is not theirs to complete"


async def test_what_is_being_taken_on_another_node_is_shown_nowhere(tmp_path: Path) -> None:
    store = Store()
    here, _ = sharing(store, tmp_path / "a", tmp_path / "b")
    there, _ = sharing(Store(), tmp_path / "b", tmp_path / "a")
    store.commits = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.request, "gdpr", [b"\0somebody"], 7)
        with trio.fail_after(30):
            while not (noted := jobs_on_disk(tmp_path / "a")):  # noqa: ASYNC110  # nobody is told of it
                await trio.sleep(0.01)
        assert [await forgetting.find(noted[0].stem) for forgetting in (here, there)] == [None, None]
        store.commits.set()
    found = await there.find(noted[0].stem)
    assert found is not None
    assert found.job.state == "in_progress"


async def test_a_request_that_cannot_be_noted_elsewhere_forgets_nobody(tmp_path: Path) -> None:
    store = Store()
    requests, notes = sharing(store, tmp_path / "a", tmp_path / "b")
    notes.refusal = StoreUnavailable("The cluster is away.", 3)
    with pytest.raises(StoreUnavailable, match="away"):
        await requests.request("gdpr", [b"\0somebody"], 7)
    assert store.told == []
