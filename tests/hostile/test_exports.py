"""Values that spreadsheets would take for formulas: exported as they are, so that an import gives the same state."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serverprocess import PRIVATE_KEY, ServerProcess

FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)", '=HYPERLINK("x","y")', "a,b", '"', "'=1", "u-1"]
# What would end a cell or a line is no identifier at all.
CONTROLS = ["\t=1", "\r=1", "a\nb", "\x00", "\x1b[2J"]
JOB_SECONDS_MAX = 60.0


def event(value: str) -> dict[str, object]:
    data = {"audience_id": "one"}
    return {"type": "passthrough", "action": "qualify", "identifiers": {"customer_id": value}, "data": data}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as running:
        yield running
        running.terminate()


def test_formulas_are_exported_as_they_are_and_imported_to_the_same_members(server: ServerProcess) -> None:
    with server.client(PRIVATE_KEY) as client:
        for audience in ("one", "two"):
            segment = {"definition": {"external": {"external_audience_id": audience}}}
            assert client.put(f"/v3/segments/{audience}", json=segment).status_code == 201
        assert client.post("/v3/events", json=[event(value) for value in FORMULAS]).status_code == 202
        assert {client.post("/v3/events", json=event(value)).status_code for value in CONTROLS} == {400}
        exported = client.get("/v3/segments/one/members", headers={"accept": "text/csv"}).text
        rows = list(csv.DictReader(io.StringIO(exported)))
        assert sorted(row["customer_id"] for row in rows) == sorted(FORMULAS)
        again = exported.replace(",one,", ",two,")
        begun = client.post("/v3/audiences/two/imports", content=again, headers={"content-type": "text/csv"})
        assert begun.status_code == 202
        deadline = time.monotonic() + JOB_SECONDS_MAX
        while (job := client.get(f"/v3/imports/{begun.json()['id']}").json())["state"] in {"queued", "running"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (job["state"], job["rejected"]) == ("completed", 0)
        pages = [client.get(f"/v3/segments/{name}/members").json() for name in ("one", "two")]
        members = [sorted(one["value"] for one in page["members"]) for page in pages]
    assert members == [sorted(FORMULAS), sorted(FORMULAS)]
