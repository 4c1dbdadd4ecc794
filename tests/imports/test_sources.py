"""Files that are fetched: a watched folder, a bucket of a real S3 server, and the command line."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.imports.test_server import imported, members, show
from tests.serverprocess import ROOT, ServerProcess, log_shown

WAIT_SECONDS_MAX = 60.0
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1"}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path: Path, watched: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, {"imports": {"watch_folder": str(watched), "watch_seconds": 0.1}})
    with log_shown(server):
        yield server
        server.close()


def test_a_file_put_into_the_folder_is_imported_and_reported(server: ServerProcess, watched: Path) -> None:
    server.start()
    (watched / "vip.csv.part").write_text("fs_user_id\nu9\n")
    (watched / ".vip.csv").write_text("fs_user_id\nu9\n")
    (watched / "vip.csv").write_text("fs_user_id\nu1\nu2\n")
    report = watched / "done" / "vip.csv.report.json"
    wait_for((watched / "done" / "vip.csv").exists)
    assert json.loads(report.read_text())["qualified"] == 2
    (watched / "others.csv").write_text("type,action,audience_id,ts,fs_user_id\npassthrough,qualify,vip,1,u\n")
    (watched / "nameless.txt").write_text("fs_user_id\nu\n")
    wait_for(lambda: (watched / "failed" / "others.csv").exists() and (watched / "failed" / "nameless.txt").exists())
    assert json.loads((watched / "failed" / "others.csv.report.json").read_text())["line"] == 2
    with server.client(server.private_key) as client:
        show(client)
        assert members(client, ["u", "u1", "u2", "u9"]) == {"u1", "u2"}
    assert sorted(path.name for path in watched.iterdir() if path.is_file()) == [".vip.csv", "vip.csv.part"]


def test_metrics_tell_what_imports_did(server: ServerProcess, watched: Path) -> None:
    server.start()
    (watched / "processing" / "stuck.csv").mkdir(parents=True, exist_ok=True)
    (watched / "gone.csv").symlink_to(watched / "nowhere")
    (watched / "vip.csv").write_text("fs_user_id\n" + "".join(f"u{number}\n" for number in range(200)) + "\x01\n")
    wait_for((watched / "done" / "vip.csv").exists)
    (watched / "vip.csv").write_text("fs_user_id\n" + "".join(f"u{number}\n" for number in range(1, 200)))
    wait_for(lambda: 'segmentd_imports_total{state="completed"} 2.0' in scraped(server))
    (watched / "vip.csv").write_text("fs_user_id\nu1\n")
    wait_for((watched / "failed" / "vip.csv").exists)
    metrics = scraped(server)
    for line in (
        "segmentd_imports_running 0.0",
        "segmentd_imports_waiting 0.0",
        'segmentd_imports_total{state="completed"} 2.0',
        'segmentd_imports_total{state="failed"} 1.0',
        'segmentd_imports_total{state="cancelled"} 0.0',
        'segmentd_import_rows_total{outcome="qualified"} 200.0',
        'segmentd_import_rows_total{outcome="disqualified"} 1.0',
        'segmentd_import_rows_total{outcome="unchanged"} 199.0',
        'segmentd_import_rows_total{outcome="rejected"} 1.0',
        'segmentd_import_source_failures_total{source="folder"} 1.0',
    ):
        assert line in metrics, line
    assert "vip" not in metrics


def scraped(server: ServerProcess) -> str:
    with server.client() as client:
        return client.get("/metrics").text


def test_what_a_crash_left_in_processing_is_gone_on_with(server: ServerProcess, watched: Path) -> None:
    (watched / "processing").mkdir()
    (watched / "processing" / "vip.csv").write_text("fs_user_id\nu1\n")
    server.start()
    wait_for((watched / "done" / "vip.csv").exists)
    # As if the crash had come between the end of the import and putting the file away.
    server.kill()
    (watched / "done" / "vip.csv").rename(watched / "processing" / "vip.csv")
    server.start()
    wait_for((watched / "done" / "vip.csv").exists)
    with server.client(server.private_key) as client:
        assert len(client.get("/v3/imports").json()["imports"]) == 1


def test_a_file_that_still_grows_is_left_alone(server: ServerProcess, watched: Path) -> None:
    server.start()
    stop = threading.Event()

    def write() -> None:
        with (watched / "vip.csv").open("w") as file:
            file.write("fs_user_id\n")
            number = 0
            while not stop.is_set():
                file.write(f"u{number}\n")
                file.flush()
                number += 1
                time.sleep(0.005)
            file.write("last\n")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        (watched / "other.csv").write_text("fs_user_id\nu\n")
        wait_for((watched / "done" / "other.csv").exists)
        assert (watched / "vip.csv").exists()
    finally:
        stop.set()
        thread.join()
    wait_for((watched / "done" / "vip.csv").exists)
    with server.client(server.private_key) as client:
        show(client)
        assert members(client, ["last"]) == {"last"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """(address, client) of an S3 server with one bucket."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    service = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    service.start()
    try:
        host, port = service.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield f"http://{host}:{port}", client
    finally:
        service.stop()


def test_an_object_in_the_bucket_is_imported_and_moved(tmp_path: Path, bucket: tuple[str, Any]) -> None:
    address, s3 = bucket
    imports = {"s3_bucket": "lists", "s3_endpoint": address, "s3_poll_seconds": 0.2}
    s3.put_object(Bucket="lists", Key="incoming/daily/vip.csv", Body=b"fs_user_id\nu1\nu2\n")
    s3.put_object(Bucket="lists", Key="incoming/bad.csv", Body=b"nothing\nu1\n")

    def keys() -> set[str]:
        return {entry["Key"] for entry in s3.list_objects_v2(Bucket="lists").get("Contents", ())}

    server = ServerProcess(tmp_path, {"imports": imports})
    with log_shown(server):
        server.start({**AWS, "AWS_EC2_METADATA_DISABLED": "true"})
        try:
            wait_for(lambda: not any(key.startswith("incoming/") for key in keys()))
            assert keys() == {
                "done/daily/vip.csv",
                "done/daily/vip.csv.report.json",
                "failed/bad.csv",
                "failed/bad.csv.report.json",
            }
            report = json.loads(s3.get_object(Bucket="lists", Key="done/daily/vip.csv.report.json")["Body"].read())
            assert report["qualified"] == 2
            with server.client(server.private_key) as client:
                show(client)
                assert members(client, ["u1", "u2"]) == {"u1", "u2"}
        finally:
            server.close()


def run_import(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SEGMENTD_KEY": server.private_key}
    command = [sys.executable, "-m", "segmentd", "import", "--url", server.url, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_the_command_line_sends_files_waits_and_tells(tmp_path: Path) -> None:
    good, bad = tmp_path / "vip.csv", tmp_path / "bad.csv"
    good.write_text("fs_user_id\nu1\nu2\n")
    bad.write_text("nothing\nu\n")
    server = ServerProcess(tmp_path)
    with log_shown(server):
        server.start()
        try:
            sent = run_import(server, str(good), "--as-of", "1000")
            assert sent.returncode == 0, sent.stderr
            assert sent.stdout.splitlines()[1].split()[:5] == ["vip.csv", "vip", "completed", "2", "2"]
            third = tmp_path / "third.csv"
            third.write_text("fs_user_id\nu1\n")
            several = run_import(server, str(bad), str(tmp_path / "missing.csv"), str(third))
            assert several.returncode == 1
            states = [line.split()[2] for line in several.stdout.splitlines()[1:4]]
            assert states == ["failed", "failed", "completed"]
            assert "bad.csv: No column is an identifier" in several.stdout
            assert run_import(server, str(tmp_path / "missing.csv")).returncode == 1
            shrunk = tmp_path / "less" / "vip.csv"
            shrunk.parent.mkdir()
            shrunk.write_text("fs_user_id\nu3\n")
            refused = run_import(server, str(shrunk))
            assert refused.returncode == 1
            assert "max_shrink" in refused.stdout
            assert run_import(server, str(shrunk), "--force", "--dry-run").returncode == 0
            assert run_import(server, "--audience", "vip", "--force", str(shrunk)).returncode == 0
            with server.client(server.private_key) as client:
                show(client)
                assert members(client, ["u1", "u2", "u3"]) == {"u3"}
                assert imported(client, ["u1"], "?as_of=999")["reason"].startswith("Superseded")
        finally:
            server.close()
