"""Freshness of audiences: exact with the 202, whatever the index knows, and after a kill; bounded, and that is said."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.imports.test_server import imported
from tests.members.service import TS, event, segment, send
from tests.serverprocess import ServerProcess, log_shown

METRIC = "segmentd_audience_as_of_timestamp_seconds"
# Nothing is folded unless somebody waits for it.
NAMED = {"metrics": {"audiences_max": 100}}
SECTIONS: dict[str, dict[str, Any]] = {
    "storage": {"checkpoint_seconds_max": 3_600},
    "server": {"followers": 1},
    **NAMED,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, SECTIONS)
    with log_shown(server):
        server.start()
        yield server
        server.close()


def shown(client: httpx.Client) -> dict[tuple[str, str], float]:
    """(audience, source) → as of when."""
    return {
        (sample.labels["audience"], sample.labels["source"]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == METRIC
    }


def number(client: httpx.Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


def in_api(client: httpx.Client) -> dict[tuple[str, str], float]:
    listed = client.get("/v3/audiences").json()["audiences"]
    fields = {"event": "last_event", "import": "last_import_as_of"}
    return {
        (audience["audience_id"], source): audience[field]
        for audience in listed
        for source, field in fields.items()
        if audience[field] is not None
    }


def test_it_is_exact_with_the_202_and_the_same_after_a_kill_and_after_a_fold(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:
        send(client, [event("red", ("fs_user_id", "u", TS + 5)), event("red", ("fs_user_id", "v", TS))])
        send(client, [event("red", ("fs_user_id", "u", TS + 7.125), "disqualify"), event("a:b@c", ("email", "a", TS))])
        send(client, [event("red", ("fs_user_id", "w", TS + 1))])
        expected = {("red", "event"): TS + 7.125, ("a:b@c", "event"): float(TS)}
        assert number(client, "segmentd_unfolded_records") == 3
        assert shown(client) == in_api(client) == expected
        assert number(client, "segmentd_unfolded_records") == 3, "reading it needs no index"
        server.restart()
    with server.client(server.private_key) as client:
        assert shown(client) == in_api(client) == expected
        segment(client, "s", "red")
        assert client.get("/v3/segments/s/members").status_code == 200
        assert number(client, "segmentd_unfolded_records") == 0
        server.restart()
    with server.client(server.private_key) as client:
        assert shown(client) == in_api(client) == expected


def test_an_import_counts_with_its_t_also_when_its_job_is_forgotten(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {"imports": {"jobs_kept_max": 1}, **NAMED}) as server:
        with server.client(server.private_key) as client:
            assert imported(client, ["u"], f"?as_of={TS}.25")["state"] == "completed"
            assert imported(client, ["u"], f"?as_of={TS + 9}&dry_run=true")["state"] == "completed"
            assert shown(client) == {("vip", "import"): TS + 0.25}
            send(client, [event("vip", ("fs_user_id", "u", TS + 1))])
            expected = {("vip", "import"): TS + 0.25, ("vip", "event"): float(TS + 1)}
            assert shown(client) == in_api(client) == expected
            server.restart()
        with server.client(server.private_key) as client:
            assert client.get("/v3/audiences/vip").json()["last_import"] is None, "the dry run has taken its place"
            assert shown(client) == in_api(client) == expected


def test_a_deleted_audience_has_none_and_one_of_the_same_name_begins_anew(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:
        assert imported(client, ["u"], f"?as_of={TS}")["state"] == "completed"
        send(client, [event("vip", ("fs_user_id", "u", TS))])
        assert client.delete("/v3/audiences/vip").status_code == 202
        assert shown(client) == {}
        now = int(time.time()) + 5
        send(client, [event("vip", ("fs_user_id", "u", now))])
        assert shown(client) == in_api(client) == {("vip", "event"): now}, "the deletion was no import"
        server.restart()
    with server.client(server.private_key) as client:
        assert shown(client) == in_api(client) == {("vip", "event"): now}


def test_beyond_the_bound_audiences_of_segments_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path, {"metrics": {"audiences_max": 2}}) as server,
        server.client("test-private-key") as client,
    ):
        assert (shown(client), number(client, "segmentd_audiences_left_out")) == ({}, 0)
        for name in ("a", "b", "c", "d"):
            send(client, [event(name, ("fs_user_id", "u", TS))])
        assert set(shown(client)) == {("a", "event"), ("b", "event")}
        assert number(client, "segmentd_audiences_left_out") == 2
        for segment_id in ("s", "t"):
            segment(client, segment_id, "d")
        segment(client, "u", "nobody_sent_this")
        assert set(shown(client)) == {("d", "event"), ("a", "event")}


def test_no_audience_is_named_unless_it_is_asked_for(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        send(client, [event("secret_audience", ("fs_user_id", "u", TS))])
        assert "secret_audience" not in client.get("/metrics").text
        assert number(client, "segmentd_audiences_left_out") == 1
