"""Files that are fetched, in one process: what is put in again, what cannot be read, what cannot be moved."""

# ruff: noqa: N803, ARG002  # the stand-in for a client of S3 has that client's names

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from segmentd.domain.events import EventRules
from segmentd.runtime import importfolder, importsources
from segmentd.runtime.children import ChildDiedError
from segmentd.runtime.importbucket import WatchedBucket
from segmentd.runtime.importfolder import WatchedFolder
from segmentd.runtime.imports import Imports
from segmentd.runtime.importsources import Delivery, Importing
from segmentd.runtime.importuploads import ImportUploads
from segmentd.settings import ImportsSettings
from segmentd.storage.stager import StagerArguments, StagingReport
from tests.imports.test_model import SCHEMA, running, send

SECONDS_MAX = 20.0


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110  # folders tell nobody
            await trio.sleep(0.01)


def importing_of(imports: Imports) -> Importing:
    rules = EventRules(SCHEMA, audience_id_chars_max=128, passthrough_enabled=True)
    return Importing(imports.uploads, imports.jobs, rules, tries_max=2)


@asynccontextmanager
async def watching(
    data: Path, watched: Path, source: Callable[[ImportsSettings, Importing], Any]
) -> AsyncIterator[Imports]:
    settings = ImportsSettings(watch_folder=str(watched), watch_seconds=0.01, s3_bucket="lists", s3_poll_seconds=0.01)
    async with running(data) as (_, imports), trio.open_nursery() as nursery:
        nursery.start_soon(source(settings, importing_of(imports)).run)
        yield imports
        nursery.cancel_scope.cancel()


def remembered(made: list[Importing]) -> Callable[[ImportsSettings, Importing], WatchedFolder]:
    """The watched folder, and in `made` what it tells its troubles."""

    def source(settings: ImportsSettings, importing: Importing) -> WatchedFolder:
        made.append(importing)
        return WatchedFolder(settings, importing)

    return source


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


def states(imports: Imports) -> list[str]:
    return [job.state for job in imports.jobs.newest_first()]


async def test_a_failed_file_that_is_put_in_again_is_imported_again(tmp_path: Path, watched: Path) -> None:
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await _put(watched, "a.csv", "fs_user_id\np0\np1\n")
        await until((watched / "done" / "a.csv").exists)
        await _put(watched, "a.csv", "fs_user_id\np2\n")
        await until((watched / "failed" / "a.csv").exists)
        assert states(imports) == ["failed", "completed"], "it would disqualify too many"
        changed_ms = (watched / "failed" / "a.csv").stat().st_mtime_ns // 1_000_000
        job = await send(imports, ["p2"], changed_ms)
        await imports.jobs.ended(job)
        # Nothing of the file has changed, not even its time; the audience has.
        (watched / "failed" / "a.csv").rename(watched / "a.csv")
        (watched / "done" / "a.csv").unlink()
        await until((watched / "done" / "a.csv").exists)
        assert states(imports) == ["completed", "completed", "failed", "completed"]


async def test_a_file_found_in_processing_at_the_start_has_the_verdict_of_its_job(
    tmp_path: Path, watched: Path
) -> None:
    async with watching(tmp_path / "data", watched, WatchedFolder):
        await _put(watched, "a.csv", "fs_user_id\np0\n")
        await until((watched / "done" / "a.csv").exists)
    (watched / "done" / "a.csv").rename(watched / "processing" / "a.csv")
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await until((watched / "done" / "a.csv").exists)
        assert states(imports) == ["completed"]


async def test_a_file_that_cannot_be_read_goes_to_failed_and_holds_up_no_other(
    tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = importfolder._opened

    async def broken(path: Path) -> AsyncIterator[bytes]:
        async for chunk in opened(path):
            if path.name == "a.csv":
                raise OSError(5, "Input/output error")
            yield chunk

    monkeypatch.setattr(importfolder, "_opened", broken)
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await _put(watched, "a.csv", "fs_user_id\np0\n")
        await _put(watched, "b.csv", "fs_user_id\np0\n")
        await until((watched / "done" / "b.csv").exists)
        await until((watched / "failed" / "a.csv").exists)
        assert states(imports) == ["completed"]
    report = json.loads((watched / "failed" / "a.csv.report.json").read_text())
    assert report["reason"] == "The file cannot be read: Input/output error"


async def test_a_file_that_cannot_be_moved_is_imported_once_and_holds_up_no_other(
    tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_away = WatchedFolder._put_away
    tried = 0

    def stubborn(folder: WatchedFolder, path: Path, delivery: Delivery) -> None:
        nonlocal tried
        if path.name == "a.csv":
            tried += 1
            raise PermissionError(13, "Permission denied")
        put_away(folder, path, delivery)

    monkeypatch.setattr(WatchedFolder, "_put_away", stubborn)
    made: list[Importing] = []
    async with watching(tmp_path / "data", watched, remembered(made)) as imports:
        await _put(watched, "a.csv", "fs_user_id\np0\n")
        await _put(watched, "b.csv", "fs_user_id\np0\n")
        await until((watched / "done" / "b.csv").exists)
        await until(lambda: tried > 3)
        assert states(imports) == ["completed", "completed"]
        assert made[0].failures == 1, "it is told once"


async def test_a_file_that_cannot_be_picked_up_is_told_once_and_again_when_the_reason_changes(
    tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    reasons = ["Permission denied"]
    tried = 0

    def stubborn(path: Path, target: Path) -> Path:
        nonlocal tried
        if path == watched / "a.csv" and reasons:
            tried += 1
            raise PermissionError(13, reasons[-1])
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    made: list[Importing] = []
    with structlog.testing.capture_logs() as logs:
        async with watching(tmp_path / "data", watched, remembered(made)) as imports:
            await _put(watched, "a.csv", "fs_user_id\np0\n")
            await _put(watched, "b.csv", "fs_user_id\np0\n")
            await until((watched / "done" / "b.csv").exists)
            await until(lambda: tried > 3)
            assert made[0].failures == 1
            reasons.append("Read-only file system")
            await until(lambda: made[0].failures == 2)
            reasons.clear()
            await until((watched / "done" / "a.csv").exists)
            assert states(imports) == ["completed", "completed"]
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["event"] for entry in told] == ["a file of the watched folder cannot be moved"] * 2
    assert all("a.csv" in entry["source"] for entry in told)
    assert "Permission denied" in told[0]["reason"]


@pytest.mark.parametrize("place", ["a.csv", "processing/a.csv"])
async def test_a_file_that_cannot_be_looked_at_is_told_once_and_holds_up_no_other(
    tmp_path: Path, watched: Path, place: str
) -> None:
    (watched / "processing").mkdir()
    (watched / place).symlink_to(watched / "nowhere")
    made: list[Importing] = []
    async with watching(tmp_path / "data", watched, remembered(made)):
        for name in ("b.csv", "c.csv"):
            await _put(watched, name, "fs_user_id\np0\n")
            await until((watched / "done" / name).exists)
        assert made[0].failures == 1


async def test_a_file_whose_reading_kills_the_stager_goes_to_failed_after_some_tries(
    tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importsources, "_BUSY_SECONDS", 0.01)
    stage = ImportUploads._stage
    tried = 0

    async def deadly(uploads: ImportUploads, arguments: StagerArguments, chunks: Any) -> StagingReport:
        nonlocal tried
        if arguments.audience_id == "a":
            tried += 1
            raise ChildDiedError("it ended with status -11")
        return await stage(uploads, arguments, chunks)

    monkeypatch.setattr(ImportUploads, "_stage", deadly)
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await _put(watched, "a.csv", "fs_user_id\np0\n")
        await _put(watched, "b.csv", "fs_user_id\np0\n")
        await until((watched / "done" / "b.csv").exists)
        assert states(imports) == ["completed"]
    assert tried == 2
    assert (watched / "failed" / "a.csv").exists()
    report = json.loads((watched / "failed" / "a.csv.report.json").read_text())
    assert "died 2 times ([imports] stager_tries_max)" in report["reason"]


async def test_a_list_that_the_guard_refused_is_forced_by_moving_it_to_force(tmp_path: Path, watched: Path) -> None:
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await _put(watched, "a.csv", "fs_user_id\np0\np1\np2\n")
        await until((watched / "done" / "a.csv").exists)
        await _put(watched, "a.csv", "fs_user_id\np0\n")
        await until((watched / "failed" / "a.csv").exists)
        assert "force/" in json.loads((watched / "failed" / "a.csv.report.json").read_text())["reason"]
        (watched / "done" / "a.csv").unlink()
        (watched / "failed" / "a.csv").rename(watched / "force" / "a.csv")
        await until((watched / "done" / "a.csv").exists)
        jobs = list(imports.jobs.newest_first())
        assert [(job.state, job.force) for job in jobs] == [
            ("completed", True),
            ("failed", False),
            ("completed", False),
        ]
        assert jobs[0].disqualified == 2


async def test_a_forced_file_that_a_crash_left_in_processing_is_still_forced(tmp_path: Path, watched: Path) -> None:
    (watched / "processing" / "force").mkdir(parents=True)
    (watched / "processing" / "force" / "a.csv").write_text("fs_user_id\np0\n")
    async with watching(tmp_path / "data", watched, WatchedFolder) as imports:
        await until((watched / "done" / "a.csv").exists)
        assert [job.force for job in imports.jobs.newest_first()] == [True]


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class Bucket:
    """As much of an S3 client as a watched bucket uses. broken: key → status of the answer to reading it."""

    def __init__(self, objects: dict[str, bytes], broken: dict[str, int]) -> None:
        self.objects = objects
        self.broken = broken

    def get_paginator(self, _: str) -> "Bucket":
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
        changed = datetime.fromtimestamp(1000, UTC)
        keys = sorted(key for key in self.objects if key.startswith(Prefix))
        return [{"Contents": [{"Key": key, "ETag": '"e"', "LastModified": changed} for key in keys]}]

    def get_object(self, Bucket: str, Key: str, IfMatch: str) -> dict[str, Any]:
        if Key in self.broken:
            raise Refused(self.broken[Key])
        return {"Body": io.BytesIO(self.objects[Key])}

    def put_object(self, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        self.objects[Key] = Body

    def copy(self, source: dict[str, str], bucket: str, target: str, ExtraArgs: dict[str, str]) -> None:
        self.objects[target] = self.objects[source["Key"]]

    def head_object(self, Bucket: str, Key: str) -> dict[str, str]:
        return {"ETag": '"e"'}

    def delete_object(self, Bucket: str, Key: str) -> None:
        del self.objects[Key]


async def test_a_bad_object_holds_up_no_other_one(tmp_path: Path, watched: Path) -> None:
    content = b"fs_user_id\np0\n"
    names = ("a", "b", "c")
    client = Bucket({f"incoming/{name}.csv": content for name in names}, {"incoming/a.csv": 403, "incoming/b.csv": 500})

    def source(settings: ImportsSettings, importing: Importing) -> WatchedBucket:
        return WatchedBucket(client, settings, importing)

    async with watching(tmp_path / "data", watched, source) as imports:
        await until(lambda: "incoming/c.csv" not in client.objects and "incoming/a.csv" not in client.objects)
        assert states(imports) == ["completed"]
        assert msgspec.json.decode(client.objects["failed/a.csv.report.json"])["reason"].endswith("status 403")
        assert "incoming/b.csv" in client.objects, "the store could not, this time"
        client.broken.clear()
        await until(lambda: "done/b.csv" in client.objects and "incoming/b.csv" not in client.objects)


async def test_objects_below_force_are_forced(tmp_path: Path, watched: Path) -> None:
    content = b"fs_user_id\np0\n"
    client = Bucket({"incoming/a.csv": content, "incoming/force/b.csv": content, "incoming/enforce/c.csv": content}, {})

    def source(settings: ImportsSettings, importing: Importing) -> WatchedBucket:
        return WatchedBucket(client, settings, importing)

    async with watching(tmp_path / "data", watched, source) as imports:
        await until(lambda: {"done/a.csv", "done/force/b.csv", "done/enforce/c.csv"} <= client.objects.keys())
        forced = {job.audience_id: job.force for job in imports.jobs.newest_first()}
        assert forced == {"a": False, "b": True, "c": False}


async def test_a_bucket_out_of_reach_is_told_once_and_again_when_it_comes_back(tmp_path: Path, watched: Path) -> None:
    client = Bucket({}, {})
    looks = 0
    out_of_reach = True
    paginate = client.paginate

    def looked(**arguments: str) -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        if out_of_reach:
            raise Refused(500)
        return paginate(**arguments)

    client.paginate = looked  # type: ignore[method-assign, assignment]
    made: list[Importing] = []

    def source(settings: ImportsSettings, importing: Importing) -> WatchedBucket:
        made.append(importing)
        return WatchedBucket(client, settings, importing)

    async def more_looks() -> None:
        enough = looks + 3
        await until(lambda: looks > enough)

    async with watching(tmp_path / "data", watched, source):
        await more_looks()
        assert made[0].failures == 1
        out_of_reach = False
        await more_looks()
        out_of_reach = True
        await more_looks()
        assert made[0].failures == 2


async def _put(folder: Path, name: str, text: str) -> None:
    await trio.Path(folder / name).write_text(text)
