"""Real servers that have done a little of everything, and the metrics that they export."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.imports.test_server import imported
from tests.members.service import TS, event, segment, send, wait_until
from tests.serverprocess import ServerProcess

QUERY = '{ customer(fs_user_id: "u") { audiences(subset: ["s"]) { edges { node { name } } } } }'


class Servers(NamedTuple):
    """alone: one process. followed: with a follower."""

    alone: ServerProcess
    followed: ServerProcess


def busy(server: ServerProcess) -> None:
    """Give every metric that has labels something to count."""
    with server.client(server.private_key) as client:
        segment(client, "s", "vip")
        send(client, [event("vip", ("fs_user_id", "u", TS)), {"type": "other", "action": "x", "identifiers": {}}])
        assert client.post("/v3/events", json=[{"type": "passthrough"}]).status_code == 400
        assert client.post("/v3/graphql", json={"query": QUERY}).status_code == 200
        assert client.get("/v3/segments/s/members").status_code == 200
        assert imported(client, ["u"], f"?as_of={TS}")["state"] == "completed"


def labels_of(client: httpx.Client) -> dict[str, set[str]]:
    """Name of each exported number, as PromQL selects it → its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both kinds, busy once."""
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("alone", "followed", "watched")]
    # Everything is slow, there is a source of imports, and traces go where nobody listens.
    sections: dict[str, dict[str, Any]] = {
        "log": {"slow_query_ms_min": 0.001},
        "metrics": {"audiences_max": 100},
        "imports": {"watch_folder": str(folders[2])},
        "traces": {"endpoint": "http://127.0.0.1:9/v1/traces"},
    }
    with ExitStack() as stack:
        alone = stack.enter_context(ServerProcess(folders[0], sections))
        followed = stack.enter_context(ServerProcess(folders[1], {**sections, "server": {"followers": 1}}))
        with followed.client() as client:
            wait_until(lambda: "segmentd_following_record" in client.get("/metrics").text)
        busy(alone)
        busy(followed)
        yield Servers(alone, followed)
