"""`segmentd check` of a cluster counts again and names what does not agree; other commands say what they do not do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.test_migrate import found, keys_in, node_of, segmentd
from tests.members.service import TS, event, segment, send
from tests.serverprocess import ServerProcess


@pytest.fixture
def node(fresh_cluster: Cluster, tmp_path: Path) -> Iterator[ServerProcess]:
    """A stopped node whose cluster has 300 identifiers in two audiences."""
    server = node_of(fresh_cluster, tmp_path / "node")
    with server, server.client(server.private_key) as client:
        segment(client, "reds", "red")
        for audience in ("red", "blue"):
            send(client, [event(audience, ("fs_user_id", f"u-{number:03d}", TS)) for number in range(300)])
        send(client, [event("red", ("fs_user_id", f"u-{number:03d}", TS + 1), "disqualify") for number in range(100)])
        server.terminate()
    yield server
    server.close()


def user_key(cluster: Cluster, value: str) -> bytes:
    return next(key for key in keys_in(cluster) if key.endswith(value.encode()))


def tag_of(key: bytes) -> bytes:
    return key[: key.index(b"}") + 1]


def test_a_sound_cluster_has_no_differences(node: ServerProcess) -> None:
    checked = segmentd("check", "--config", str(node.config))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    said = "48 partitions, 300 identifiers, 600 memberships, 500 members, 2 audiences, 1 segments: no differences"
    assert checked.stdout == said + "\n"
    assert checked.stderr == ""


def test_each_kind_of_damage_is_named(node: ServerProcess, fresh_cluster: Cluster) -> None:
    unlisted, orphan, miscounted = (user_key(fresh_cluster, f"u-{number}") for number in (250, 260, 270))
    with fresh_cluster.connection_for(unlisted) as connection:
        for members in found(connection, tag_of(unlisted) + b"m*"):
            connection.call("ZREM", members, unlisted[unlisted.index(b"}") + 2 :])
    with fresh_cluster.connection_for(orphan) as connection:
        connection.call("ZADD", found(connection, tag_of(orphan) + b"m*")[0], 0, b"\0nobody")
    with fresh_cluster.connection_for(miscounted) as connection:
        connection.call("HINCRBY", tag_of(miscounted) + b"c", "n", 1)
    with fresh_cluster.connection_for("{registry}e") as connection:
        connection.call("HSET", "{registry}e", "a:odd", "0:no msgpack at all")
    checked = segmentd("check", "--config", str(node.config))
    assert checked.returncode == 1
    lines = checked.stdout.splitlines()
    for said in (
        "'u-250' is qualified and not listed",
        "'nobody' is listed and not qualified",
        "a recount of users gives",
        "of them have a version",
    ):
        assert any(said in line for line in lines), checked.stdout + checked.stderr
    assert lines[-1].endswith(" differences")


def test_backup_and_restore_say_how_a_cluster_is_backed_up(node: ServerProcess, tmp_path: Path) -> None:
    for command in ("backup", "restore"):
        refused = segmentd(command, "--config", str(node.config), str(tmp_path / "copy"))
        assert refused.returncode == 2
        assert "docs/cluster.md, Back up a cluster" in refused.stderr


def test_keys_of_a_cluster_are_made_without_a_word_of_the_log(node: ServerProcess) -> None:
    created = segmentd("keys", "create", "--config", str(node.config), "--right", "public", "--id", "shop")
    assert created.returncode == 0
    assert len(created.stdout.splitlines()) == len(created.stderr.splitlines()) == 1
    listed = segmentd("keys", "list", "--config", str(node.config))
    assert "shop" in listed.stdout
    assert listed.stderr == ""
