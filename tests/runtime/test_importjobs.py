"""The jobs of imports: what is shown of one is on disk."""

from pathlib import Path

import msgspec
import pytest
import trio

from segmentd.domain.importjob import ImportJob
from segmentd.runtime.importjobs import ImportJobs
from segmentd.storage.importjobs import JobFolder


def _job() -> ImportJob:
    return ImportJob(
        id="one",
        audience_id="vip",
        as_of_ms=1,
        identifier="fs_user_id",
        kind_number=1,
        source="http",
        max_shrink=0.5,
        created_ms=1,
    )


async def test_an_end_is_shown_when_no_crash_takes_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobFolder(tmp_path)
    jobs = ImportJobs(folder, waiting_max=2, kept_max=2, retry_after_seconds=1)
    folder.make("one")
    job = _job()
    await jobs.add(job)
    write, shown = folder.write, []

    def written(job_id: str, encoded: bytes) -> None:
        shown.append((job.state, job.reason))
        write(job_id, encoded)

    monkeypatch.setattr(folder, "write", written)
    await jobs.end(job, state="failed", reason="It would disqualify too many.")
    assert shown == [("queued", None)]
    assert (job.state, job.reason) == ("failed", "It would disqualify too many.")
    assert [(each.state, each.reason) for each in folder.load()] == [(job.state, job.reason)]
    assert msgspec.json.decode((tmp_path / "imports" / "one" / "job.json").read_bytes())["state"] == "failed"


async def test_a_job_whose_end_is_decided_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = JobFolder(tmp_path)
    jobs = ImportJobs(folder, waiting_max=2, kept_max=2, retry_after_seconds=1)
    folder.make("one")
    job = _job()
    await jobs.add(job)
    begun: list[ImportJob] = []

    async def write_slowly(_job: ImportJob) -> None:
        with trio.move_on_after(0.05):
            begun.append(await jobs.next())

    monkeypatch.setattr(jobs, "_written", write_slowly)
    await jobs.end(job, state="cancelled")
    assert begun == []
    await jobs.ended(job)
