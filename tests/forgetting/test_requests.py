"""A request to forget is complete only when no staged list and no old file can hold the identifier."""

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.forgetting import Forgetting
from segmentd.storage.forgetjobs import ForgetJobs


class Store:
    """Notes what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        self.told.append(f"forget {len(keys)} at {now_ms}")

    async def scrub(self) -> None:
        self.told.append("scrub")


def forgetting(store: Store, data: Path) -> Forgetting:
    return Forgetting(store, data, scrub_seconds_min=0.01, jobs_kept_max=2, retry_after_seconds=1)


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
