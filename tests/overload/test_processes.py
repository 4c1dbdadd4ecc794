"""A machine that has no process and no thread left for the server: what needs one is refused, and all else goes on.

The bound is that of a group of control (`pids.max`), as systemd's TasksMax= and containers set it.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.overload.crowds import assert_recovered, events, show, size, wait_until
from tests.serverprocess import ServerProcess, log_shown

GROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
UPLOAD = ("POST", "/v3/audiences/list/imports?force=true", b"fs_user_id\nada\n", "text/csv")
FORGET = ("POST", "/v3/compliance/gdpr/delete", b'[{"fs_user_id":"nobody"}]', "application/json")
EXPORT = ("GET", "/v3/segments/crowd/members?format=csv", b"", "text/csv")
FOLDED_AT_ONCE = {"storage": {"checkpoint_seconds_max": 0.1}}


@contextmanager
def nothing_left(server: ServerProcess) -> Iterator[None]:
    """Neither threads nor children can be started meanwhile."""
    group = _group(server.pid)
    try:
        wait_until(lambda: _tasks(server.pid) <= 2, "the threads that wait for work have ended")
        (group / "pids.max").write_text("1")
        yield
        (group / "pids.max").write_text("max")
    finally:
        (group.parent / "cgroup.procs").write_text(str(server.pid))
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (group.parent / "cgroup.procs").write_text(pid)
        wait_until(lambda: _removed(group), "the group is empty")


def _removed(group: Path) -> bool:
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


def _group(pid: int) -> Path:
    for parent in GROUPS:
        group = parent / f"segmentd-test-{pid}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "pids.max").exists():
            (group / "cgroup.procs").write_text(str(pid))
            return group
        group.rmdir()
    pytest.skip("no group of control can be made here")


def _tasks(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _state(client: httpx.Client, job_id: str) -> str:
    return str(client.get(f"/v3/imports/{job_id}").json()["state"])


@pytest.mark.parametrize("followers", [0, 1])
def test_without_threads_and_processes_the_server_answers_refuses_and_recovers(tmp_path: Path, followers: int) -> None:
    with ServerProcess(tmp_path, {**FOLDED_AT_ONCE, "server": {"followers": followers}}) as server, log_shown(server):
        show(server)
        with server.client(server.private_key) as client, nothing_left(server):
            for child in _children(server.pid):
                os.kill(child, signal.SIGKILL)
            assert client.post("/v3/events", content=events(range(1, 4))).status_code == 202
            assert size(client) == 4
            for method, path, body, media in (UPLOAD, FORGET, EXPORT):
                headers = {"content-type": media, "accept": "*/*"}
                answer = client.request(method, path, content=body, headers=headers)
                assert answer.status_code == 503, (path, answer.text)
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("/healthz").status_code == 200
            wait_until(lambda: any("starting it again" in line for line in server.log), "the log says what is missing")
        with server.client(server.private_key) as client:
            for method, path, body, media in (UPLOAD, FORGET, EXPORT):
                headers = {"content-type": media, "accept": "*/*"}
                assert client.request(method, path, content=body, headers=headers).status_code in {200, 202}
            assert size(client) == 4
        assert_recovered(server)
        server.terminate()
        assert server.check().returncode == 0


def test_a_list_that_was_taken_is_imported_when_there_are_threads_again(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.write_text("3")
    server = ServerProcess(tmp_path, FOLDED_AT_ONCE)
    server.start({"SEGMENTD_FAILPOINT": f"slow_commit:{hold}"})
    with log_shown(server), server.client(server.private_key) as client:
        method, path, body, media = UPLOAD
        job = client.request(method, path, content=body, headers={"content-type": media}).json()
        with nothing_left(server):
            hold.unlink()
        ended = partial(_state, client, job["id"])
        wait_until(lambda: ended() in {"completed", "failed"}, "the import ends")
        assert ended() == "completed"
        server.terminate()
