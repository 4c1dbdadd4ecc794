"""`DELETE /v3/imports/{id}` through a real server, at every point of an import's life, also after a restart."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.imports.test_server import WAIT_SECONDS_MAX, ended, imported, listing, members, post, send_event, show, size
from tests.serverprocess import ServerProcess, log_shown

OLD = [f"old-{number:04d}" for number in range(1_200)]
NEW = [f"new-{number:05d}" for number in range(12_000)]
SLOW: dict[str, dict[str, Any]] = {"imports": {"slice_changes": 1}}
"""A commit for each row: an import takes seconds, and there is time to look at it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A slow server whose audience has the OLD as of 1000."""
    with ServerProcess(tmp_path) as fast:
        with fast.client(fast.private_key) as client:
            show(client)
            assert imported(client, OLD, "?as_of=1000")["state"] == "completed"
        fast.terminate()
    server = ServerProcess(tmp_path, SLOW)
    with log_shown(server), server:
        yield server


def taken(client: httpx.Client, people: list[str], query: str) -> str:
    answer = post(client, listing(people), query)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def come_to(client: httpx.Client, job_id: str, phase: str, progress: float = 0.0) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (job := client.get(f"/v3/imports/{job_id}").json())["phase"] != phase or job["progress"] < progress:
        assert job["finished_at"] is None, f"it never was seen {phase}: {job}"
        assert time.monotonic() < deadline, job
        time.sleep(0.005)


def test_one_that_waits_for_its_turn_is_cancelled_and_does_nothing(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:
        running, waiting = taken(client, NEW, "?as_of=2000&force=1"), taken(client, NEW[:1], "?as_of=3000&force=1")
        answer = client.delete(f"/v3/imports/{waiting}")
        assert answer.status_code == 200
        job = answer.json()
        found = [job[name] for name in ("id", "state", "phase", "reason", "started_at", "qualified", "progress")]
        assert found == [waiting, "cancelled", None, None, None, 0, 0]
        assert job["finished_at"] is not None
        assert client.get(f"/v3/imports/{running}").json()["state"] in {"queued", "running"}
        with server.client(server.public_key) as public:
            assert public.delete(f"/v3/imports/{running}").status_code == 403
        assert client.delete(f"/v3/imports/{running}").status_code == 200
        before = size(client)
        server.restart()
    with server.client(server.private_key) as client:
        assert client.get(f"/v3/imports/{waiting}").json() == job
        assert size(client) == before
        assert not list(server.data.glob("imports/*/staged"))


@pytest.mark.parametrize("killed_before", [False, True])
def test_cancelled_while_it_qualifies_it_keeps_exactly_those_it_counts_and_voids_nothing(
    server: ServerProcess, killed_before: bool
) -> None:
    with server.client(server.private_key) as client:
        job_id = taken(client, NEW, "?as_of=2000&force=1")
        come_to(client, job_id, "qualifying", 0.1)
    if killed_before:
        server.restart()
    with server.client(server.private_key) as client:
        if killed_before:
            come_to(client, job_id, "qualifying", 0.15)
        answer = client.delete(f"/v3/imports/{job_id}")
        job = answer.json()
        assert (answer.status_code, job["state"], job["disqualified"]) == (200, "cancelled", 0)
        kept = size(client) - len(OLD)
        assert 0 < kept < len(NEW)
        # What was written in the last half second before a kill is found qualified already when the import goes on.
        assert job["qualified"] == kept if not killed_before else job["qualified"] + job["unchanged"] >= kept
        assert members(client, [*OLD[:50], *NEW[:50], *NEW[-50:]]) == {*OLD[:50], *NEW[:50]}
        send_event(client, "from-before", "qualify", 1500)
        assert members(client, ["from-before"]) == {"from-before"}, "no floor was raised"
        again = client.delete(f"/v3/imports/{job_id}")
        assert (again.status_code, again.json()) == (200, job), "cancelling once more is no error"
        assert size(client) == len(OLD) + kept + 1
    server.restart()
    with server.client(server.private_key) as client:
        assert client.get(f"/v3/imports/{job_id}").json() == job
        assert size(client) == len(OLD) + kept + 1
    server.terminate()
    assert server.check().returncode == 0


def test_from_the_floor_on_it_is_too_late_and_the_answer_says_so(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:
        job_id = taken(client, NEW[:5], "?as_of=2000&force=1")
        come_to(client, job_id, "sweeping")
        answer = client.delete(f"/v3/imports/{job_id}")
        assert answer.status_code == 409
        assert "past the point where it could be cancelled, and goes through" in answer.json()["message"]
    server.restart()
    with server.client(server.private_key) as client:
        answer = client.delete(f"/v3/imports/{job_id}")
        assert answer.status_code == 409
        job = ended(client, job_id)
        assert (job["state"], job["disqualified"], size(client)) == ("completed", len(OLD), 5)
        answer = client.delete(f"/v3/imports/{job_id}")
        assert (answer.status_code, answer.json()["message"]) == (409, "The import is completed.")
        assert client.delete("/v3/imports/nothing").status_code == 404
    server.restart()
    with server.client(server.private_key) as client:
        answer = client.delete(f"/v3/imports/{job_id}")
        assert (answer.status_code, answer.json()["message"]) == (409, "The import is completed.")


def test_while_its_file_is_on_the_way_it_has_no_id_and_ends_with_the_connection(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:

        def body() -> Iterator[bytes]:
            yield listing(NEW[:500])
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while not (
                folders := [path.name for path in server.data.glob("imports/*") if not (path / "job.json").exists()]
            ):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with server.client(server.private_key) as other:
                assert other.delete(f"/v3/imports/{folders[0]}").status_code == 404
            raise RuntimeError("the client goes")

        with pytest.raises(RuntimeError, match="the client goes"):
            client.post("/v3/audiences/vip/imports", content=body(), headers={"content-type": "text/csv"})
        assert len(client.get("/v3/imports").json()["imports"]) == 1
        assert size(client) == len(OLD)
