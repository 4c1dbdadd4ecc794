"""What operators see of a node: status, readiness and metrics tell of the cluster, well or not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.test_migrate import node_of
from tests.members.service import TS, event, send, wait_until
from tests.observability.conftest import labels_of
from tests.observability.promql import asked
from tests.observability.test_dashboard import CLUSTER, questions, unknown
from tests.serverprocess import ServerProcess
from tests.sources import ROOT


@pytest.fixture
def node(own_cluster: Cluster, tmp_path: Path) -> Iterator[ServerProcess]:
    with node_of(own_cluster, tmp_path / "node", outbox_seconds=60) as server:
        yield server


def status(client: httpx.Client) -> Any:
    answer = client.get("/v3/status")
    assert answer.status_code == 200, answer.text
    return answer.json()


def metrics(client: httpx.Client) -> dict[str, float]:
    text = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(segmentd_\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def families(text: str) -> dict[str, str]:
    found = re.findall(r"^# TYPE (segmentd_\w+) (\w+)$", text, re.MULTILINE)
    return {name: kind for name, kind in found if "_created" not in name}


def test_metrics_of_a_cluster_are_documented_and_those_of_the_journal_are_not_there(node: ServerProcess) -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(segmentd_\w+)` \| (\w+) \|", page, re.MULTILINE))
    with node.client() as client:
        exported = families(client.get("/metrics").text)
    of_clusters = {name for name in documented if name.startswith("segmentd_cluster_")}
    assert {name for name in exported if name.startswith("segmentd_cluster_")} == of_clusters
    assert exported.items() <= documented.items()
    assert not {"segmentd_journal_bytes", "segmentd_journal_records", "segmentd_unfolded_records"} & exported.keys()


def test_the_row_of_the_dashboard_asks_for_what_a_node_exports_and_for_all_of_it(node: ServerProcess) -> None:
    with node.client() as client:
        exported = labels_of(client)
    row = [question for question in questions() if question.row.startswith(CLUSTER)]
    assert {question: missing for question in row if (missing := unknown(question, exported))} == {}
    shown = {re.sub(r"_bucket$", "", name) for question in row for name in asked(question.expression).selected}
    names = {name for name in exported if name.startswith("segmentd_cluster_") and not name.endswith("_created")}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} == shown


def test_the_status_shows_servers_and_leaves_out_what_a_cluster_has_not(node: ServerProcess) -> None:
    with node.client(node.private_key) as client:
        send(client, [event("red", ("fs_user_id", f"u-{number}", TS)) for number in range(100)])
        shown = status(client)
        assert shown["checkpoints"] is None
        assert "journal_bytes" not in shown["store"]
        assert "journal_bytes_max" not in shown["limits"]
        cluster = shown["cluster"]
        primaries = [server for server in cluster["servers"] if server["role"] == "primary"]
        assert len(cluster["servers"]) == 9
        assert [server["replicas"] for server in primaries] == [2, 2, 2]
        assert sum(server["partitions"] for server in primaries) == cluster["partitions"] == 48
        assert all(server["answers"] for server in cluster["servers"])
        assert cluster["partitions_away"] == 0
        assert cluster["outbox_bytes"] > 0
        assert client.get("/readyz").json() == {"status": "ready", "cluster": {"partitions": 48, "away": 0}}
        client.get("/v3/audiences")
        assert metrics(client)["segmentd_cluster_read_seconds_count"] > 0


def test_a_primary_that_dies_shows_and_leaves_the_node_ready(node: ServerProcess, own_cluster: Cluster) -> None:
    slot = 0
    dying = own_cluster.master_of(slot)
    with node.client(node.private_key) as client:
        send(client, [event("red", ("fs_user_id", f"u-{number}", TS)) for number in range(100)])
        dying.kill()
        wait_until(lambda: status(client)["cluster"]["partitions_away"] == 16)
        assert client.get("/readyz").json()["cluster"] == {"partitions": 48, "away": 16}
        own_cluster.wait_for_failover(slot, dying)
        wait_until(lambda: status(client)["cluster"]["partitions_away"] == 0)
        wait_until(lambda: metrics(client)["segmentd_cluster_recovered_changes_total"] > 0)
        send(client, [event("red", ("fs_user_id", f"u-{number}", TS + 1)) for number in range(100)])
        seen = metrics(client)
        assert seen['segmentd_cluster_servers{answers="yes",role="primary"}'] == 3
        assert len(status(client)["cluster"]["servers"]) == 9
        assert sum(not server["answers"] for server in status(client)["cluster"]["servers"]) == 1
        assert sum(value for name, value in seen.items() if name.startswith("segmentd_cluster_retries_total")) > 0
        assert status(client)["cluster"]["last_recovery_at"] is not None


def test_a_cluster_that_is_away_makes_the_node_unready_until_it_is_back(
    node: ServerProcess, own_cluster: Cluster
) -> None:
    with node.client(node.private_key) as client:
        own_cluster.kill_all()
        wait_until(lambda: client.get("/readyz").status_code == 503)
        told = client.get("/readyz")
        assert told.json()["message"].startswith("The cluster is away: none of its servers has answered for ")
        assert told.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        assert status(client)["not_ready"].startswith("The cluster is away")
        own_cluster.start_all()
        own_cluster.wait_whole()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        send(client, [event("red", ("fs_user_id", "u-1", TS))])
