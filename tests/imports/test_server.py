"""Whole lists through a real server: the answers of the API, crashes in every phase, readers and writers meanwhile."""

import gzip
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serverprocess import PROGRAMS, ServerDiedError, ServerProcess, log_shown

WAIT_SECONDS_MAX = 60.0
ENDED = {"completed", "failed", "cancelled"}
SECTIONS: dict[str, dict[str, Any]] = {
    "imports": {"slice_changes": 50},
    "storage": {"checkpoint_journal_bytes": 65_536, "checkpoint_seconds_max": 0.2},
}


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, SECTIONS, program=request.param)
    with log_shown(server):
        yield server
        server.close()


def listing(people: Iterable[str]) -> bytes:
    return "".join(["fs_user_id\n", *(f"{person}\n" for person in people)]).encode()


def post(client: httpx.Client, content: bytes, query: str = "", audience: str = "vip") -> httpx.Response:
    headers = {"content-type": "text/csv"}
    return client.post(f"/v3/audiences/{audience}/imports{query}", content=content, headers=headers)


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/v3/imports/{job_id}").json()
        if job["state"] in ENDED:
            return job
        time.sleep(0.02)
    raise AssertionError(f"the import did not end: {job}")


def imported(client: httpx.Client, people: Iterable[str], query: str) -> dict[str, Any]:
    answer = post(client, listing(people), query)
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])


def show(client: httpx.Client) -> None:
    definition = {"definition": {"external": {"external_audience_id": "vip"}}}
    assert client.put("/v3/segments/vip", json=definition).status_code in {200, 201}


def size(client: httpx.Client) -> int:
    answer = client.post("/v3/graphql", json={"query": '{ audience(name: "vip") { size } }'})
    found: int = answer.json()["data"]["audience"]["size"]
    return found


def members(client: httpx.Client, people: Iterable[str]) -> set[str]:
    asked = list(people)
    found = set()
    for start in range(0, len(asked), 50):
        group = asked[start : start + 50]
        fields = " ".join(
            f'p{at}: customer(fs_user_id: "{who}") {{ audiences(subset: ["vip"]) {{ edges {{ node {{ name }} }} }} }}'
            for at, who in enumerate(group)
        )
        data = client.post("/v3/graphql", json={"query": f"{{ {fields} }}"}).json()["data"]
        found |= {who for at, who in enumerate(group) if data[f"p{at}"]["audiences"]["edges"]}
    return found


def send_event(client: httpx.Client, person: str, action: str, ts: float) -> None:
    data = {"audience_id": "vip", "ts": ts}
    event = {"type": "passthrough", "action": action, "identifiers": {"fs_user_id": person}, "data": data}
    assert client.post("/v3/events", json=event).status_code == 202


def test_an_upload_becomes_a_job_that_tells_everything(server: ServerProcess) -> None:
    server.start()
    with server.client(server.private_key) as client:
        rows = "".join(f"passthrough,qualify,vip,{ts},u{ts}\n" for ts in (5, 7, 6))
        content = gzip.compress(f"type,action,audience_id,ts,fs_user_id\n{rows}".encode())
        answer = post(client, content)
        assert answer.status_code == 202
        job = ended(client, answer.json()["id"])
        assert answer.headers["location"] == f"/v3/imports/{job['id']}"
        assert (job["state"], job["as_of"], job["qualified"], job["rows"]) == ("completed", 7, 3, 3)
        assert job["progress"] == 1
        again = ended(client, post(client, content).json()["id"])
        assert (again["qualified"], again["unchanged"]) == (0, 3)
        assert [found["id"] for found in client.get("/v3/imports").json()["imports"]] == [again["id"], job["id"]]
        page = client.get("/v3/imports?limit=1").json()
        assert [page["imports"][0]["id"], page["cursor"]] == [again["id"], again["id"]]
        assert client.get(f"/v3/imports?cursor={page['cursor']}").json()["imports"][0]["id"] == job["id"]
        assert client.delete(f"/v3/imports/{job['id']}").status_code == 409
        assert client.get("/v3/imports/nothing").status_code == 404


def test_a_bad_file_or_query_gets_a_reason_and_leaves_nothing(server: ServerProcess) -> None:
    server.start()
    good = listing(["u"])
    with server.client(server.private_key) as client:
        answer = post(client, b"fs_user_id\n" + b"x" * 30_000_000)
        assert answer.status_code == 400
        assert answer.json()["detail"] == {
            "message": "Line 2 is longer than 65536 bytes ([imports] line_bytes_max).",
            "line": 2,
        }
        for query in (
            "?dryrun=1",
            "?as_of=x",
            "?as_of=99999999999",
            "?force=maybe",
            "?max_shrink=2",
            "?identifier=vuid",
        ):
            assert post(client, good, query).status_code == 400, query
        assert post(client, good, audience="a%20b").status_code == 400
        headers = {"content-type": "application/json"}
        assert client.post("/v3/audiences/vip/imports", content=good, headers=headers).status_code == 415
        assert client.get("/v3/imports").json() == {"imports": [], "cursor": None}
    with server.client(server.public_key) as client:
        assert post(client, good).status_code == 403
    assert not [path for path in server.data.rglob("imports/*") if path.is_dir()]


def test_more_bad_rows_than_allowed_fail_the_import_and_are_listed(server: ServerProcess) -> None:
    server.start()
    with server.client(server.private_key) as client:
        people = [f"u{number}" for number in range(98)]
        job = imported(client, [*people, "x" * 300, "y" * 300], "")
        assert (job["state"], job["rejected"], job["qualified"]) == ("failed", 2, 0)
        assert [reject["line"] for reject in job["rejects"]] == [100, 101]
        job = imported(client, [*people, "z1", "x" * 300], "")
        assert (job["state"], job["rejected"], job["qualified"]) == ("completed", 1, 99)


@pytest.mark.parametrize("point", ["import_staging", "import_qualifying", "import_raising", "import_sweeping"])
def test_killed_in_any_phase_it_ends_in_the_same_state(server: ServerProcess, point: str) -> None:
    everybody = [f"u{number:03d}" for number in range(400)]
    server.start()
    with server.client(server.private_key) as client:
        show(client)
        assert imported(client, everybody[:300], "?as_of=1000")["state"] == "completed"
        send_event(client, everybody[0], "qualify", 3000)
        send_event(client, everybody[399], "disqualify", 3000)
    server.kill()
    hits = {"import_staging": 1, "import_qualifying": 3, "import_raising": 1, "import_sweeping": 2}[point]
    job_id = None
    try:
        server.start({"SEGMENTD_FAILPOINT": f"{point}:{hits}"})
        with server.client(server.private_key) as client:
            job_id = post(client, listing(everybody[150:]), "?as_of=2000").json()["id"]
            ended(client, job_id)
    except (httpx.TransportError, ServerDiedError):
        assert server.wait() == -9
    else:
        pytest.fail(f"the server outlived {point}")
    server.start()
    with server.client(server.private_key) as client:
        jobs = client.get("/v3/imports").json()["imports"]
        if point == "import_staging":
            assert len(jobs) == 1, "an upload that was never answered leaves no job"
            assert imported(client, everybody[150:], "?as_of=2000")["state"] == "completed"
        else:
            assert jobs[0]["id"] == job_id or job_id is None
            assert ended(client, jobs[0]["id"])["state"] == "completed"
        send_event(client, everybody[1], "qualify", 1999)
        assert members(client, everybody) == {everybody[0], *everybody[150:399]}
        assert size(client) == 250
    server.terminate()
    checked = server.check()
    assert checked.returncode == 0, checked.stdout


def test_an_audience_that_stays_full_is_never_seen_smaller_while_events_go_on(server: ServerProcess) -> None:
    everybody = [f"u{number:04d}" for number in range(3000)]
    server.start()
    with server.client(server.private_key) as client:
        show(client)
        imported(client, everybody, "?as_of=1000")
        sizes: list[int] = []
        stop = threading.Event()

        def watch() -> None:
            with server.client(server.private_key) as watcher:
                while not stop.is_set():
                    sizes.append(size(watcher))
                    send_event(watcher, "late", "qualify", 1500)
                    send_event(watcher, "new", "qualify", 3000)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            job = imported(client, everybody, "?as_of=2000")
        finally:
            stop.set()
            thread.join()
        assert job["state"] == "completed"
        assert sizes
        assert min(sizes) >= len(everybody)
        assert members(client, ["late", "new"]) == {"new"}
        assert size(client) == len(everybody) + 1


def test_a_client_that_leaves_in_the_middle_leaves_nothing(server: ServerProcess) -> None:
    server.start()

    def broken() -> Iterator[bytes]:
        yield listing(f"u{number}" for number in range(1000))
        raise RuntimeError("the client dies")

    with server.client(server.private_key) as client:
        with pytest.raises(RuntimeError):
            client.post("/v3/audiences/vip/imports", content=broken(), headers={"content-type": "text/csv"})
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while list(server.data.glob("imports/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not list(server.data.glob("imports/*"))
        assert client.get("/v3/imports").json()["imports"] == []
