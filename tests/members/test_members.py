"""Who is in a segment: pages that miss nobody, files that can be taken in again."""

import csv
import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.members.service import TS, event, members, pages, segment, send, wait_until
from tests.serverprocess import ServerProcess

NASTY = ['quote"comma,', "=1+1", "+49", "-1", "@sum", "ünï çødé", " leading and trailing ", "semi;colon", "'single"]


def some(count: int) -> set[tuple[str, str, float]]:
    return {("fs_user_id", f"u-{number:04d}", TS + number / 1000) for number in range(count)}


def test_pages_show_every_member_once_in_a_stable_order(client: httpx.Client) -> None:
    segment(client, "s", "red")
    wanted = some(25) | {("email", f"{number}@b.example", TS) for number in range(8)}
    send(client, [event("red", member) for member in wanted])
    send(client, [event("red", ("fs_user_id", "out", TS), "disqualify"), event("blue", ("fs_user_id", "x", TS))])
    found = pages(client, "s", 7)
    assert [len(page) for page in found] == [7, 7, 7, 7, 5]
    listed = [(member["identifier"], member["value"], member["qualified_at"]) for page in found for member in page]
    assert len(listed) == len(set(listed))
    assert set(listed) == wanted
    assert {member["source"] for page in found for member in page} == {"event"}
    assert pages(client, "s", 1_000) == [[member for page in found for member in page]]


def test_a_page_goes_on_behind_its_cursor_while_members_come_and_go(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", member) for member in some(10)])
    page = client.get("/v3/segments/s/members", params={"first": "5"}).json()
    assert page["total"] == 10
    # The member that the cursor names leaves, and another one comes before it.
    send(client, [event("red", ("fs_user_id", "u-0004", TS + 9), "disqualify"), event("red", ("fs_user_id", "a", TS))])
    rest = client.get("/v3/segments/s/members", params={"after": page["next"]}).json()
    assert [member["value"] for member in rest["members"]] == [f"u-{number:04d}" for number in range(5, 10)]
    assert (rest["total"], rest["next"]) == (10, None)


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ({"first": "0"}, 400, "first"),
        ({"first": "1001"}, 400, "first"),
        ({"first": "x"}, 400, "first"),
        ({"after": "x"}, 400, "after"),
        ({"format": "xml"}, 400, "format"),
        ({"format": "csv", "identifier": "vuid"}, 400, "identifier"),
        ({"format": "csv", "gzip": "maybe"}, 400, "gzip"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(
    client: httpx.Client, query: dict[str, str], status: int, word: str
) -> None:
    segment(client, "s", "red")
    answer = client.get("/v3/segments/s/members", params=query)
    assert (answer.status_code, answer.json()["field"]) == (status, word)


def test_members_are_for_private_keys_and_of_segments_that_exist(server: ServerProcess, client: httpx.Client) -> None:
    segment(client, "s", "red")
    with server.client(server.public_key) as public:
        assert public.get("/v3/segments/s/members").status_code == 403
        assert public.get("/v3/audiences").status_code == 403
    assert client.get("/v3/segments/other/members").status_code == 404
    assert client.get("/v3/segments/s/members").json() == {"members": [], "total": 0, "next": None}


def test_a_csv_has_the_form_of_an_import_and_changes_no_value(client: httpx.Client) -> None:
    segment(client, "s", "red")
    wanted = {("fs_user_id", value, TS + 0.25) for value in NASTY}
    send(client, [event("red", member) for member in wanted])
    answer = client.get("/v3/segments/s/members", headers={"accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="red.csv"'
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["type", "action", "audience_id", "ts", "fs_user_id"]
    assert {tuple(row) for row in rows[1:]} == {
        ("passthrough", "qualify", "red", f"{TS}.250", value) for value in NASTY
    }


def test_a_csv_of_several_identifiers_asks_which_and_takes_that_one(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", ("fs_user_id", "u", TS)), event("red", ("email", "a@b.example", TS))])
    refused = client.get("/v3/segments/s/members", params={"format": "csv"})
    assert refused.status_code == 400
    assert "fs_user_id, email" in refused.json()["message"]
    one = client.get("/v3/segments/s/members", params={"format": "csv", "identifier": "email"})
    assert one.text == f"type,action,audience_id,ts,email\npassthrough,qualify,red,{TS},a@b.example\n"
    none = client.get("/v3/segments/s/members", params={"format": "csv", "identifier": "customer_id"})
    assert none.text == "type,action,audience_id,ts,customer_id\n"


def test_ndjson_has_all_identifiers_as_events_that_make_the_same_state_again(
    server: ServerProcess, client: httpx.Client
) -> None:
    segment(client, "s", "red")
    wanted = some(3_000) | {("email", "a@b.example", TS + 0.001)} | {("customer_id", value, TS) for value in NASTY}
    send(client, [event("red", member) for member in wanted])
    text = client.get("/v3/segments/s/members", headers={"accept": "application/x-ndjson"}).text
    segment(client, "copy", "green")
    send(
        client,
        [{**line, "data": {**line["data"], "audience_id": "green"}} for line in map(json.loads, text.splitlines())],
    )
    assert members(client, "copy") == members(client, "s") == wanted


def test_an_exported_csv_imported_again_gives_the_same_members_at_its_t(client: httpx.Client) -> None:
    segment(client, "s", "red")
    wanted = {value for _, value, _ in some(50)} | set(NASTY)
    send(client, [event("red", ("fs_user_id", value, TS)) for value in wanted])
    file = client.get("/v3/segments/s/members", params={"format": "csv", "gzip": "true"}).content
    assert client.delete("/v3/audiences/red").status_code == 202
    # After the deletion only what is said as of now counts.
    answer = client.post("/v3/audiences/red/imports", content=file, headers={"content-type": "text/csv"}, params=_now())
    assert answer.status_code == 202, answer.text
    job = _ended(client, answer.json()["id"])
    assert (job["state"], job["qualified"]) == ("completed", len(wanted)), job
    found = [member for page in pages(client, "s", 1_000) for member in page]
    assert {member["value"] for member in found} == wanted
    assert {member["qualified_at"] for member in found} == {job["as_of"]}
    assert {member["source"] for member in found} == {f"import:{job['id']}"}


def _now() -> dict[str, str]:
    return {"as_of": f"{time.time() + 1:.3f}"}


def _ended(client: httpx.Client, job_id: str) -> Any:
    def ended() -> Any:
        job = client.get(f"/v3/imports/{job_id}").json()
        return job if job["state"] in {"completed", "failed"} else None

    return wait_until(ended)


def test_gzip_is_the_file_or_only_the_way(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", member) for member in some(10)])
    plain = client.get("/v3/segments/s/members", params={"format": "csv"}, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    coded = client.get("/v3/segments/s/members", params={"format": "csv"}, headers={"accept-encoding": "gzip"})
    assert (coded.headers["content-encoding"], coded.text) == ("gzip", plain.text)
    packed = client.get("/v3/segments/s/members", params={"format": "csv", "gzip": "true"})
    assert packed.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in packed.headers
    assert gzip.decompress(packed.content).decode() == plain.text


def test_an_export_is_one_snapshot_while_writes_go_on(server: ServerProcess, client: httpx.Client) -> None:
    segment(client, "s", "red")
    wanted = some(4_000)
    send(client, [event("red", member) for member in wanted])
    with client.stream("GET", "/v3/segments/s/members", params={"format": "csv"}) as answer:
        with server.client(server.private_key) as writer:
            send(writer, [event("red", (name, value, ts + 60), "disqualify") for name, value, ts in wanted])
            assert writer.get("/v3/audiences/red").json()["size"] == 0
        rows = list(csv.reader(answer.iter_lines()))
    assert len(rows) == 1 + len(wanted)


def test_clients_that_leave_their_exports_leave_room_for_the_next(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", member) for member in some(30_000)])
    for _ in range(6):
        with client.stream("GET", "/v3/segments/s/members", params={"format": "ndjson"}) as answer:
            assert answer.status_code == 200
            next(answer.iter_bytes())

    def whole() -> bool:
        answer = client.get("/v3/segments/s/members", params={"format": "ndjson"})
        return answer.status_code == 200 and len(answer.text.splitlines()) == 30_000

    # Four may run at a time; a server that still holds those of departed clients would say 503.
    wait_until(whole)


def test_an_export_that_breaks_off_never_looks_whole(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start({"SEGMENTD_FAILPOINT": "exporting:3"})
    with server.client(server.private_key) as client:
        segment(client, "s", "red")
        send(client, [event("red", member) for member in some(20_000)])
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/v3/segments/s/members", params={"format": "ndjson"}, headers={"accept-encoding": "identity"})
        assert client.get("/v3/audiences/red").json()["size"] == 20_000
    server.close()
