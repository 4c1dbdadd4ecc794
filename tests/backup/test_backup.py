"""A backup that is taken while the server writes has everything acknowledged before it, and comes back as it was."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.members.service import TS, event, members, segment, send
from tests.serverprocess import ROOT, ServerProcess

# Checkpoints and cuts all the time, so that they fall into the copies.
SECTIONS = {"storage": {"checkpoint_journal_bytes": 4_096, "checkpoint_seconds_max": 0.05}}


def command(server: ServerProcess, name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SEGMENTD_")}
    return subprocess.run(
        server.command(name, *arguments), cwd=ROOT, capture_output=True, text=True, check=False, env=kept | environ
    )


def people(start: int, count: int) -> set[tuple[str, str, float]]:
    return {("fs_user_id", f"u-{number:05d}", float(TS + number)) for number in range(start, start + count)}


def test_a_backup_under_load_restores_to_all_that_was_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "copy").mkdir()
    copy = ServerProcess(tmp_path / "copy", SECTIONS)
    acknowledged: list[set[tuple[str, str, float]]] = []
    stop = threading.Event()

    def write(server: ServerProcess) -> None:
        with server.client(server.private_key) as client:
            while not stop.is_set():
                batch = people(len(acknowledged) * 50, 50)
                send(client, [event("red", member) for member in batch])
                acknowledged.append(batch)

    with ServerProcess(tmp_path / "origin", SECTIONS) as server:
        with server.client(server.private_key) as client:
            segment(client, "s", "red")
        writer = threading.Thread(target=write, args=(server,))
        writer.start()
        try:
            for number in range(4):
                before = len(acknowledged)
                target = tmp_path / f"backup-{number}"
                taken = command(server, "backup", str(target))
                assert taken.returncode == 0, taken.stderr
                shutil.rmtree(copy.data, ignore_errors=True)
                restored = command(copy, "restore", str(target))
                assert restored.returncode == 0, restored.stdout + restored.stderr
                with copy, copy.client(copy.private_key) as client:
                    found = members(client, "s")
                    assert set().union(*acknowledged[:before]) <= found
                    send(client, [event("red", ("email", "new@b.example", TS))])
                    assert len(members(client, "s")) == len(found) + 1
                    copy.terminate()
                checked = copy.check()
                assert checked.returncode == 0, checked.stdout
        finally:
            stop.set()
            writer.join()
    assert len(acknowledged) > 8, "hardly anything was written meanwhile"


def test_a_backup_of_a_stopped_server_is_the_same_state(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        segment(client, "s", "red")
        send(client, [event("red", member) for member in people(0, 100)])
        server.terminate()
        assert command(server, "backup", str(tmp_path / "b")).returncode == 0
        copy = ServerProcess(tmp_path / "copy")
        assert command(copy, "restore", str(tmp_path / "b")).returncode == 0
        with copy, copy.client(copy.private_key) as client_of_copy:
            assert members(client_of_copy, "s") == people(0, 100)


def test_a_killed_backup_leaves_nothing_under_its_name_and_can_be_taken_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        segment(client, "s", "red")
        target = tmp_path / "b"
        assert command(server, "backup", str(target), SEGMENTD_FAILPOINT="backing_up").returncode == -9
        assert not target.exists()
        assert command(server, "backup", str(target)).returncode == 0
        assert not (tmp_path / "b.part").exists()


def test_nothing_is_overwritten_and_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        segment(client, "s", "red")
        send(client, [event("red", member) for member in people(0, 10)])
        again = command(server, "backup", str(tmp_path))
        assert (again.returncode, "not empty" in again.stderr) == (1, True)
        assert command(server, "backup", str(tmp_path / "b")).returncode == 0
        back = command(server, "restore", str(tmp_path / "b"))
        assert (back.returncode, "not empty" in back.stderr) == (1, True)
    (tmp_path / "b" / "format.json").write_text('{"format": 999}')
    (tmp_path / "other").mkdir()
    other = ServerProcess(tmp_path / "other")
    assert command(other, "restore", str(tmp_path / "b")).returncode == 1
    assert not other.data.exists()
    assert command(other, "restore", str(tmp_path / "nothing")).returncode == 1


@pytest.mark.parametrize("options", [(), ("--plain",), ("--format", "ndjson")])
def test_an_export_by_command_is_the_file_that_the_server_gives(tmp_path: Path, options: tuple[str, ...]) -> None:
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        segment(client, "s", "red")
        send(client, [event("red", member) for member in people(0, 10)])
        line = [*server.command("export")[:4], *options, "--url", server.url, "--key", server.private_key, "s"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        query = {"format": "ndjson" if "ndjson" in options else "csv", "gzip": str("--plain" not in options).lower()}
        wanted: httpx.Response = client.get("/v3/segments/s/members", params=query)
        assert done.stdout == wanted.content
        missing = subprocess.run([*line[:-1], "nobody"], cwd=ROOT, capture_output=True, check=False)
        assert (missing.returncode, missing.stdout) == (1, b"")
        assert b"Segment not found." in missing.stderr
