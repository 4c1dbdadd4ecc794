"""Import jobs on disk: what a crash may leave of one that was refused is no job."""

import os
from pathlib import Path

import msgspec
import pytest

from segmentd.domain.importjob import ImportJob
from segmentd.storage.importjobs import JobFolder

JOB = ImportJob(
    id="1", audience_id="a", as_of_ms=1, identifier="x", kind_number=0, source="t", max_shrink=0, created_ms=1
)


@pytest.fixture
def jobs(tmp_path: Path) -> JobFolder:
    """One job that waits for its turn."""
    jobs = JobFolder(tmp_path)
    jobs.make(JOB.id)
    jobs.staged(JOB.id).write_text("ann\n")
    jobs.write(JOB.id, msgspec.json.encode(JOB))
    return jobs


def test_a_job_is_there_after_a_start(jobs: JobFolder) -> None:
    assert [job.id for job in jobs.load()] == [JOB.id]


def test_a_job_whose_list_went_in_a_crash_is_none_and_holds_up_no_other(jobs: JobFolder) -> None:
    jobs.staged(JOB.id).unlink()
    assert list(jobs.load()) == []
    assert not jobs.staged(JOB.id).parent.exists()


def test_a_job_is_removed_before_its_list_durably(jobs: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.listdir(handle)))
    jobs.remove(JOB.id)
    assert synced == [["staged"]]
    jobs.remove(JOB.id)
