"""Whether a node starts: not on a cluster that cannot keep the promise, and never without saying why."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.engines import find_engine
from tests.cluster.failures.conftest import Serve
from tests.cluster.failures.service import SegmentdNode, Service, client_of, is_member, put_segment
from tests.cluster.failures.test_outage import event
from tests.cluster.nodes import Node
from tests.serverprocess import ROOT, ServerDiedError

WEAK = [
    ("appendonly", "no", "yes"),
    ("appendfsync", "everysec", "always"),
    ("min-replicas-to-write", "0", "1"),
]


@contextmanager
def setting(server: Node, name: str, value: str, before: str) -> Iterator[None]:
    """Another setting for one server, for a while."""
    assert server.call("CONFIG", "SET", name, value) == b"OK"
    try:
        yield
    finally:
        assert server.call("CONFIG", "SET", name, before) == b"OK"


def test_servers_whose_settings_cannot_keep_the_promise_are_named_and_nothing_starts(
    whole: Cluster, serve: Serve
) -> None:
    with ExitStack() as stack:
        expected = []
        for server, (name, value, before) in zip(whole.nodes[-len(WEAK) :], WEAK, strict=True):
            stack.enter_context(setting(server, name, value, before))
            expected.append(f"{server.address}: {name} = {value}; must be")
        with pytest.raises(ServerDiedError) as died:
            serve()
        assert died.value.returncode == 1
        said = str(died.value)
        assert [line for line in expected if line not in said] == []
        assert said.count("must be") == len(WEAK), "the others are as they should be"
        assert "accept_weaker_promises" in said
        (node,) = serve(1, {"accept_weaker_promises": True}).nodes
        warnings = node.lines_of("warning", "may lose what it has acknowledged")
        assert [line for line in expected if line not in "\n".join(warnings)] == []
        assert len(warnings) == len(WEAK)


def test_too_few_replicas_are_named_and_nothing_starts(make_cluster: MakeCluster, tmp_path: Path) -> None:
    small = make_cluster(masters=1, replicas=1)
    with pytest.raises(ServerDiedError) as died, Service(tmp_path, small, 1, {}):
        pass
    assert died.value.returncode == 1
    assert f"{small.nodes[0].address}: has 1 replicas; 2 are needed" in str(died.value)


def test_a_node_starts_while_a_server_is_down_and_says_what_is_missing(whole: Cluster, serve: Serve) -> None:
    master = whole.masters()[0]
    whole.replicas_of(master)[0].kill()
    seen_dead(whole)
    (node,) = serve().nodes
    (warning,) = node.lines_of("warning", "a server of the cluster is away")
    assert f"{master.address}: has 1 replicas; 2 are needed" in warning


def seen_dead(cluster: Cluster) -> None:
    """Wait until all servers take the dead one for dead."""
    deadline = time.monotonic() + 30.0
    (dead,) = (node.node_id for node in cluster.nodes if not node.is_running)
    while any("fail" not in node.views()[dead].flags for node in cluster.answering):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_the_extra_the_start_says_what_is_missing(tmp_path: Path, serve: Serve) -> None:
    without = tmp_path / "without" / "coredis"
    without.mkdir(parents=True)
    (without / "__init__.py").write_text("raise ImportError(\"No module named 'coredis'\")\n", encoding="utf-8")
    (node,) = serve().nodes
    node.terminate()
    with pytest.raises(ServerDiedError) as died:
        node.start({"PYTHONPATH": str(without.parent)})
    assert died.value.returncode == 1
    assert "needs the extra segmentd[cluster]: No module named 'coredis'" in str(died.value)


@pytest.fixture
def guarded(make_cluster: MakeCluster) -> Cluster:
    engine = find_engine()
    if engine is None or not engine.tls:
        pytest.skip("the server program here knows no TLS")
    return make_cluster(masters=1, replicas=2, tls=True, user="segmentd", password="a secret", engine=engine)


def access(cluster: Cluster, **others: Any) -> dict[str, Any]:
    authority = str(cluster.security.authority)
    return {"tls": True, "tls_ca_file": authority, "user": "segmentd", "password": "a secret", **others}


def test_tls_and_a_password_work_from_end_to_end(guarded: Cluster, tmp_path: Path) -> None:
    with Service(tmp_path, guarded, 1, access(guarded)) as service:
        put_segment(service.urls[0], "guarded")
        with client_of(service.urls[0]) as client:
            assert client.post("/v3/events", json=[event("u1", "guarded")]).status_code == 202
            assert is_member(client, "u1", "guarded")
        service.check_logs()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"password": "another secret"}, "invalid username-password pair"),
    ({"tls_ca_file": ""}, "certificate verify failed"),
    ({"tls": False, "tls_ca_file": ""}, "[store] tls"),
]


def test_a_node_that_cannot_get_in_says_why_keeps_trying_and_ends_when_told_to(
    guarded: Cluster, tmp_path: Path
) -> None:
    nodes = [
        SegmentdNode(tmp_path / f"node-{number}", guarded, access(guarded, **wrong), {})
        for number, (wrong, _) in enumerate(WRONG)
    ]
    with ExitStack() as stack:
        attempts = [stack.enter_context(attempt(node)) for node in nodes]
        for (_, reason), (process, lines) in zip(WRONG, attempts, strict=True):
            wait_for_line(process, lines, reason)
            process.terminate()
            process.wait(30.0)
    for process, lines in attempts:
        said = "".join(lines)
        assert process.returncode == 0, said
        assert any(f"'{address}: " in said for address in guarded.addresses), "whose fault it is"
        assert "Traceback" not in said
        assert "a secret" not in said
        assert "another secret" not in said
        assert len(lines) < 40, said


@contextmanager
def attempt(node: SegmentdNode) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A start that is not waited for, and what it says."""
    command = node.command("serve", "--listen", "127.0.0.1:0")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lines.extend, args=(process.stdout,))
    reading.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reading.join()


def wait_for_line(process: subprocess.Popen[str], lines: list[str], reason: str) -> None:
    deadline = time.monotonic() + 60.0
    while not any("waiting for the cluster" in line and reason in line for line in lines):
        assert process.poll() is None, "".join(lines)
        assert time.monotonic() < deadline, "".join(lines)
        time.sleep(0.05)
