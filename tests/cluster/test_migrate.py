"""`segmentd migrate`: what was in one kind of store is in the other, all of it, and goes on as it would have."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.resp import Connection
from tests.members.service import TS, event, send, wait_until
from tests.serverprocess import ROOT, ServerProcess

USERS = [f"u-{number:04d}" for number in range(3_000)]
LIST_TS = TS + 1_000


def embedded(folder: Path) -> ServerProcess:
    folder.mkdir()
    return ServerProcess(folder, {"storage": {"path": str(folder / "data")}})


def node_of(cluster: Cluster, folder: Path, *, outbox_seconds: float = 1) -> ServerProcess:
    """outbox_seconds: short, so that forgetting is done soon."""
    folder.mkdir()
    store = {"kind": "cluster", "addresses": cluster.addresses, "outbox_seconds": outbox_seconds}
    return ServerProcess(folder, {"storage": {"path": str(folder / "data")}, "store": store})


def segmentd(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segmentd", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def migrate(source: ServerProcess, target: ServerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    return segmentd("migrate", "--config", str(source.config), "--to", str(target.config), *options)


def put(client: httpx.Client, segment_id: str, audience: str, description: str) -> None:
    definition = {"description": description, "definition": {"external": {"external_audience_id": audience}}}
    answer = client.put(f"/v3/segments/{segment_id}", json=definition)
    assert answer.status_code in {200, 201}, answer.text


def import_list(client: httpx.Client, audience: str, users: list[str]) -> None:
    answer = client.post(
        f"/v3/audiences/{audience}/imports",
        params={"as_of": str(LIST_TS), "force": "true"},
        content="\n".join(["fs_user_id", *users, ""]),
        headers={"content-type": "text/csv"},
    )
    assert answer.status_code == 202, answer.text
    job = f"/v3/imports/{answer.json()['id']}"
    wait_until(lambda: client.get(job).json()["state"] == "completed")


def delete_audience(client: httpx.Client, audience: str) -> None:
    deletion = client.delete(f"/v3/audiences/{audience}").json()["id"]
    wait_until(lambda: client.get(f"/v3/audiences/{audience}/deletions/{deletion}").json()["state"] == "completed")


def fill(client: httpx.Client) -> None:
    """Something of everything that a store can hold."""
    put(client, "reds", "red", "first")
    put(client, "reds", "red", "second")
    put(client, "gone", "red", "is deleted, and its revision goes on")
    assert client.delete("/v3/segments/gone").status_code == 200
    send(client, [event("red", ("fs_user_id", user, TS + at)) for at, user in enumerate(USERS)])
    send(client, [event("red", ("fs_user_id", user, TS + 9_999), "disqualify") for user in USERS[::3]])
    send(client, [event("blue", ("email", f"{user}@example.com", TS)) for user in USERS[:500]])
    send(client, [event("listed", ("fs_user_id", user, TS)) for user in USERS[:200]])
    import_list(client, "listed", USERS[100:400])
    for audience in ("ended", "revived"):
        send(client, [event(audience, ("fs_user_id", user, TS)) for user in USERS[:100]])
        delete_audience(client, audience)
    send(client, [event("revived", ("fs_user_id", user, int(time.time()) + 2)) for user in USERS[50:60]])
    forget(client, "u-0001")


def forget(client: httpx.Client, user: str) -> None:
    answer = client.post("/v3/compliance/gdpr/delete", json=[{"fs_user_id": user}])
    assert answer.status_code == 202, answer.text
    status = f"/v3/compliance/gdpr/status/{answer.json()['request_id']}"
    wait_until(lambda: client.get(status).json()["status"] == "COMPLETED")


def everything(client: httpx.Client) -> dict[str, Any]:
    """All that the API tells of what `fill` has made."""
    looked_up = {}
    for user in USERS[:450:7]:
        for name, value in (("fs_user_id", user), ("email", f"{user}@example.com")):
            looked_up[value] = client.post("/v3/customers/lookup", json={name: value}).json()["memberships"]
    return {
        "audiences": client.get("/v3/audiences").json(),
        "segments": {
            segment_id: client.get(f"/v3/segments/{segment_id}").json()
            for segment_id in client.get("/v3/segments").json()["segment_ids"]
        },
        "imports": client.get("/v3/imports").json()["imports"],
        "lookups": looked_up,
    }


def requires_all_that_was_promised(client: httpx.Client, *, revision: int) -> None:
    """What a store remembers beside what it shows. revision: of the deleted segment when it is made again."""
    # Older than the list, than the deletion, than the forgetting: each is taken, and changes nothing.
    void = (("listed", USERS[900]), ("revived", USERS[900]), ("ended", USERS[900]), ("red", "u-0001"))
    send(client, [event(audience, ("fs_user_id", user, TS)) for audience, user in void])
    for user in (USERS[900], "u-0001"):
        found = client.post("/v3/customers/lookup", json={"fs_user_id": user}).json()["memberships"]
        assert {each["audience_id"] for each in found if each["state"] == "qualified"} <= {"red"}
        assert user != "u-0001" or not found
    put(client, "gone", "red", "again")
    assert client.get("/v3/segments/gone").json()["revision"] == revision
    assert client.delete("/v3/segments/gone").status_code == 200


@pytest.fixture
def filled(tmp_path: Path) -> tuple[ServerProcess, dict[str, Any], str]:
    """A stopped server, what it showed, and a secret that it takes."""
    server = embedded(tmp_path / "embedded")
    created = segmentd("keys", "create", "--config", str(server.config), "--right", "private", "--id", "nightly")
    with server, server.client(server.private_key) as client:
        fill(client)
        shown = everything(client)
        server.terminate()
    return server, shown, created.stdout.strip()


def test_everything_goes_into_a_cluster_and_back(
    filled: tuple[ServerProcess, dict[str, Any], str], fresh_cluster: Cluster, tmp_path: Path
) -> None:
    origin, shown, secret = filled
    node, back = node_of(fresh_cluster, tmp_path / "node"), embedded(tmp_path / "back")
    there = migrate(origin, node)
    assert there.returncode == 0, there.stdout + there.stderr
    assert "no differences" in there.stdout
    assert "cluster found" not in there.stdout + there.stderr
    with node, node.client(secret) as client:
        assert everything(client) == shown
        requires_all_that_was_promised(client, revision=2)
        shown = everything(client)
        node.terminate()
    again = migrate(node, back)
    assert again.returncode == 0, again.stdout + again.stderr
    checked = segmentd("check", "--config", str(back.config))
    assert checked.returncode == 0, checked.stdout
    with back, back.client(secret) as client:
        assert everything(client) == shown
        requires_all_that_was_promised(client, revision=3)


def test_a_dry_run_counts_and_changes_nothing(
    filled: tuple[ServerProcess, dict[str, Any], str], fresh_cluster: Cluster, tmp_path: Path
) -> None:
    origin, _, _ = filled
    node = node_of(fresh_cluster, tmp_path / "node")
    dry = migrate(origin, node, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.startswith("3499 identifiers, "), dry.stdout
    wet = migrate(origin, node)
    assert wet.returncode == 0, wet.stdout + wet.stderr


def test_a_killed_migration_is_started_again_and_a_whole_one_is_not_repeated_unasked(
    filled: tuple[ServerProcess, dict[str, Any], str], fresh_cluster: Cluster, tmp_path: Path
) -> None:
    origin, shown, _ = filled
    node = node_of(fresh_cluster, tmp_path / "node")
    command = ["migrate", "--config", str(origin.config), "--to", str(node.config)]
    half = subprocess.Popen([sys.executable, "-m", "segmentd", *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until(lambda: half.poll() is not None or users_in(fresh_cluster))
    os.kill(half.pid, signal.SIGKILL)
    half.wait()
    whole = segmentd(*command)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    refused = segmentd(*command)
    assert refused.returncode == 1
    assert "holds something already" in refused.stderr
    repeated = segmentd(*command, "--merge")
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    with node, node.client(node.private_key) as client:
        assert everything(client) == shown


def test_what_differs_in_the_end_is_listed(
    filled: tuple[ServerProcess, dict[str, Any], str], fresh_cluster: Cluster, tmp_path: Path
) -> None:
    origin, _, _ = filled
    node, back = node_of(fresh_cluster, tmp_path / "node"), embedded(tmp_path / "back")
    assert migrate(origin, node).returncode == 0
    key = next(key for key in keys_in(fresh_cluster) if key.endswith(b"\0u-0010"))
    with fresh_cluster.connection_for(key) as connection:
        # A user who is gone, and whom the counts still have.
        connection.call("DEL", key)
    spoilt = migrate(node, back)
    assert spoilt.returncode == 1
    assert "identifiers: 3499 in the source, 3498 in the target" in spoilt.stdout
    assert not back.data.exists()


def test_a_data_folder_that_is_served_is_refused(fresh_cluster: Cluster, tmp_path: Path) -> None:
    origin, node = embedded(tmp_path / "embedded"), node_of(fresh_cluster, tmp_path / "node")
    with origin:
        refused = migrate(origin, node)
    assert refused.returncode == 1
    assert "another segmentd process uses this folder" in refused.stderr


def test_merging_keeps_the_later_decision_and_what_was_there(fresh_cluster: Cluster, tmp_path: Path) -> None:
    origin, node = embedded(tmp_path / "embedded"), node_of(fresh_cluster, tmp_path / "node")
    with origin, origin.client(origin.private_key) as client:
        send(client, [event("red", ("fs_user_id", user, TS)) for user in ("both", "ours")])
        origin.terminate()
    with node, node.client(node.private_key) as client:
        send(client, [event("red", ("fs_user_id", "both", TS + 5), "disqualify")])
        send(client, [event("red", ("fs_user_id", "theirs", TS))])
        node.terminate()
    refused = migrate(origin, node)
    assert refused.returncode == 1
    assert "holds something already" in refused.stderr
    merged = migrate(origin, node, "--merge")
    assert merged.returncode == 0, merged.stdout + merged.stderr
    with node, node.client(node.private_key) as client:
        assert client.get("/v3/audiences/red").json()["size"] == 2
        found = client.post("/v3/customers/lookup", json={"fs_user_id": "both"}).json()["memberships"]
        assert [(each["state"], each["updated_at"]) for each in found] == [("not_qualified", TS + 5)]
        node.terminate()
    assert segmentd("check", "--config", str(node.config)).returncode == 0


def test_two_of_a_kind_are_refused(tmp_path: Path) -> None:
    refused = migrate(embedded(tmp_path / "one"), embedded(tmp_path / "two"))
    assert refused.returncode == 1
    assert "one must be embedded, one a cluster" in refused.stderr


def found(connection: Connection, pattern: str | bytes) -> list[bytes]:
    """The keys of one server."""
    answer = connection.call("KEYS", pattern)
    assert isinstance(answer, list)
    return [key for key in answer if isinstance(key, bytes)]


def keys_in(cluster: Cluster) -> list[bytes]:
    """The keys of all identifiers."""
    keys: list[bytes] = []
    for master in cluster.masters():
        with master.connection() as connection:
            keys += found(connection, "{*}u*")
    return keys


def users_in(cluster: Cluster) -> bool:
    return len(keys_in(cluster)) > 0
