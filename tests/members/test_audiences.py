"""Audiences: what there is of them, and deleting them so that they stay deleted, killed or not."""

import time
from pathlib import Path

import httpx
import pytest

from tests.members.service import TS, event, members, segment, send, wait_until
from tests.serverprocess import ServerProcess

PEOPLE = {("fs_user_id", f"u-{number}", float(TS)) for number in range(2_000)}


def test_the_list_shows_size_last_event_and_segments_page_by_page(client: httpx.Client) -> None:
    for segment_id, audience in (("a", "red"), ("b", "red"), ("c", "blue")):
        segment(client, segment_id, audience)
    send(client, [event("red", ("fs_user_id", "u", TS)), event("red", ("fs_user_id", "v", TS + 0.5), "disqualify")])
    send(client, [event("blue", ("fs_user_id", "u", TS)), event("green", ("email", "a@b.example", TS))])
    first = client.get("/v3/audiences", params={"first": "2"}).json()
    rest = client.get("/v3/audiences", params={"first": "2", "after": first["next"]}).json()
    assert (first["total"], rest["next"]) == (3, None)
    assert [*first["audiences"], *rest["audiences"]] == [
        {"audience_id": name, "size": 1, "last_event": last, "segment_ids": ids}
        | {"last_import": None, "last_import_as_of": None}
        for name, last, ids in (("blue", TS, ["c"]), ("green", TS, []), ("red", TS + 0.5, ["a", "b"]))
    ]
    assert client.get("/v3/audiences/green").json() == first["audiences"][1]
    assert client.get("/v3/audiences/nobody").status_code == 404


def is_completed(client: httpx.Client, deletion_id: str) -> bool:
    return bool(client.get(f"/v3/audiences/red/deletions/{deletion_id}").json()["state"] == "completed")


def test_a_deleted_audience_is_gone_at_once_and_old_events_do_not_bring_it_back(client: httpx.Client) -> None:
    segment(client, "s", "red")
    send(client, [event("red", member) for member in PEOPLE])
    deleted = client.delete("/v3/audiences/red")
    assert deleted.status_code == 202
    assert members(client, "s") == set()
    assert client.get("/v3/audiences/red").status_code == 404
    send(client, [event("red", member) for member in PEOPLE])
    assert members(client, "s") == set()
    now = ("fs_user_id", "u-1", float(int(time.time()) + 2))
    send(client, [event("red", now)])
    assert members(client, "s") == {now}
    wait_until(lambda: is_completed(client, deleted.json()["id"]))
    assert members(client, "s") == {now}


def test_deleting_what_is_not_there_is_told(client: httpx.Client) -> None:
    assert client.delete("/v3/audiences/nobody").status_code == 404
    assert client.get("/v3/audiences/nobody/deletions/0").status_code == 404
    assert client.get("/v3/audiences/nobody/deletions/x").status_code == 404


@pytest.mark.parametrize("failpoint", [None, "sweeping_deleted:1", "sweeping_deleted:3"])
def test_a_deletion_goes_on_after_a_kill(tmp_path: Path, failpoint: str | None) -> None:
    server = ServerProcess(tmp_path, {"storage": {"checkpoint_batch_changes_max": 500}})
    server.start({} if failpoint is None else {"SEGMENTD_FAILPOINT": failpoint})
    with server.client(server.private_key) as client:
        segment(client, "s", "red")
        send(client, [event("red", member) for member in PEOPLE])
        send(client, [event("blue", member) for member in list(PEOPLE)[:100]])
        deletion = client.delete("/v3/audiences/red").json()
    if failpoint is None:
        server.kill()
    else:
        assert server.wait() == -9
    assert server.check().returncode == 0
    with server, server.client(server.private_key) as client:
        assert members(client, "s") == set()
        wait_until(lambda: is_completed(client, deletion["id"]))
        assert client.get("/v3/audiences").json()["total"] == 1
        server.terminate()
    checked = server.check()
    assert checked.returncode == 0, checked.stdout
    assert " 100 memberships, 100 members, 1 audiences" in checked.stdout


def test_the_list_can_be_of_the_audiences_of_some_segments(client: httpx.Client) -> None:
    for segment_id, audience in (("a", "red"), ("b", "blue"), ("c", "blue")):
        segment(client, segment_id, audience)
    send(client, [event(name, ("fs_user_id", "u", TS)) for name in ("red", "blue", "green")])
    for segments, expected in (("a", ["red"]), ("c,b,unknown", ["blue"]), ("a,b", ["blue", "red"]), ("", [])):
        found = client.get("/v3/audiences", params={"segments": segments}).json()
        assert [audience["audience_id"] for audience in found["audiences"]] == expected
        assert found["total"] == len(expected)
