"""A disk that is really full: a small tmpfs, which refuses to grow a file as a full disk does.

Writes are refused with the reason, reads go on, nothing acknowledged is lost, and freed space is enough to go on.
"""

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serverprocess import Sections, ServerProcess

DISK_BYTES = 24 << 20
FILLER_BYTES = 16 << 20
"""What it leaves is soon full; without it the index has room for all that the journal holds by then."""
BATCH = 500
SECONDS_MAX = 60
SECTIONS: Sections = {"storage": {"checkpoint_seconds_max": 0.2}}
AUDIENCE = "vip"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with a filler in it that can be removed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        (folder / "filler").write_bytes(b"\0" * FILLER_BYTES)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def events(start: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "passthrough",
            "action": "qualify",
            "identifiers": {"fs_user_id": f"user-{start + number:08d}-{'x' * 60}"},
            "data": {"audience_id": AUDIENCE},
        }
        for number in range(BATCH)
    ]


def fill(client: httpx.Client, taken: int) -> tuple[int, httpx.Response]:
    """Send new identifiers until a request is refused; how many are acknowledged by then, and the refusal."""
    while True:
        answer = client.post("/v3/events", json=events(taken))
        if answer.status_code != 202:
            return taken, answer
        taken += BATCH
        assert taken * 60 < 10 * DISK_BYTES, "the disk is never full"


def send_when_taken(client: httpx.Client, taken: int) -> int:
    deadline = time.monotonic() + SECONDS_MAX
    while (answer := client.post("/v3/events", json=events(taken))).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    assert answer.status_code == 202, answer.text
    return taken + BATCH


def asked(client: httpx.Client, query: str) -> Any:
    answer = client.post("/v3/graphql", json={"query": query})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def size(client: httpx.Client) -> int:
    count: int = asked(client, f'{{ audience(name: "{AUDIENCE}") {{ size }} }}')["audience"]["size"]
    return count


def has(client: httpx.Client, number: int) -> bool:
    user = events(number)[0]["identifiers"]["fs_user_id"]
    found = asked(client, f'{{ customer(fs_user_id: "{user}") {{ audiences {{ edges {{ node {{ name }} }} }} }} }}')
    return bool(found["customer"]["audiences"]["edges"])


def failures(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("segmentd_commit_failures_total"))


def test_a_full_disk_refuses_writes_answers_reads_and_goes_on_when_there_is_room(disk: Path) -> None:
    server = ServerProcess(disk, SECTIONS)
    with server:
        with server.client(server.private_key) as client:
            definition = {"definition": {"external": {"external_audience_id": AUDIENCE}}, "description": "-"}
            assert client.put("/v3/segments/vip", json=definition).status_code == 201
            taken, refused = fill(client, 0)
            assert taken
            assert refused.status_code == 503
            assert "no space left" in refused.json()["detail"]["message"]
            assert int(refused.headers["retry-after"]) > 0
            assert failures(client) > 0
            assert size(client) == taken
            assert has(client, 0)
            assert not has(client, taken), "what was refused is not there"
            assert client.get("/healthz").status_code == 200
            assert any("no space left" in line for line in server.log), "the log says why"

            (disk / "filler").unlink()
            taken = send_when_taken(client, taken)
            again, _ = fill(client, taken)
            assert size(client) == again >= taken
        server.terminate()
        checked = server.check()
        assert checked.returncode == 0, checked.stdout + checked.stderr
        server.start()
        with server.client(server.private_key) as client:
            assert size(client) == again
            assert has(client, again - BATCH)
            assert not has(client, again)


def test_lists_and_backups_on_a_full_disk_are_refused_with_the_reason_and_leave_nothing(disk: Path) -> None:
    server = ServerProcess(disk, SECTIONS)
    rows = "fs_user_id\n" + "".join(f"user-{number:08d}-{'x' * 60}\n" for number in range(60_000))
    with server, server.client(server.private_key) as client:
        taken, _ = fill(client, 0)
        upload = partial(client.post, "/v3/audiences/list/imports?force=true", headers={"content-type": "text/csv"})
        refused = upload(content=rows.encode())
        assert refused.status_code == 503, refused.text
        assert "No space left" in refused.json()["detail"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert not list((server.data / "imports").iterdir())
        copied = subprocess.run(
            server.command("backup", str(disk / "copy")), capture_output=True, text=True, check=False
        )
        assert copied.returncode == 1
        assert "No space left" in copied.stderr
        assert not (disk / "copy.part").exists()

        (disk / "filler").unlink()
        send_when_taken(client, taken)
        assert upload(content=rows[:100_000].encode()).status_code == 202
