"""The console of a node shows the cluster instead of a journal, and says which server does not answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_migrate import node_of
from tests.console.conftest import browser, console, open_page, shot
from tests.members.service import TS, event, segment, send, wait_until
from tests.serverprocess import ServerProcess, log_shown

__all__ = ["browser", "console", "open_page"]


@pytest.fixture
def small_cluster(make_cluster: MakeCluster) -> Cluster:
    """One that has replicas to spare, and little to start."""
    return make_cluster(masters=3, replicas=2)


@pytest.fixture
def server(small_cluster: Cluster, tmp_path: Path) -> Iterator[ServerProcess]:
    """A node, as the console's own fixtures want it."""
    with node_of(small_cluster, tmp_path / "node") as server, log_shown(server):
        with server.client(server.private_key) as client:
            segment(client, "reds", "red")
            send(client, [event("red", ("fs_user_id", f"u-{number}", TS)) for number in range(50)])
        yield server


def test_health_shows_the_cluster_and_nothing_of_a_journal(
    console: Page, server: ServerProcess, small_cluster: Cluster
) -> None:
    console.get_by_role("link", name="Health").click()
    expect(console.get_by_role("heading", name="Cluster well", exact=True)).to_be_visible()
    expect(console.get_by_role("heading", name="Outbox well")).to_be_visible()
    for missing in ("Journal", "Checkpoints"):
        expect(console.get_by_role("heading", name=missing)).to_have_count(0)
    card = console.locator(".card").filter(has_text="it shards, replicates and fails over")
    expect(card.locator("dl.facts")).to_contain_text("Servers that answer9 of 9")
    servers = console.get_by_role("table").locator("tbody tr")
    expect(servers).to_have_count(9)
    shot(console, "cluster")
    # Whether or not the others have noticed yet.
    frozen = next(node for node in small_cluster.replicas_of(small_cluster.masters()[0]))
    frozen.freeze()
    expect(console.get_by_role("heading", name="Cluster look here")).to_be_visible()
    row = console.get_by_role("table").locator("tbody tr").filter(has_text=frozen.address)
    expect(row).to_contain_text("no")
    shot(console, "cluster-frozen")
    frozen.thaw()
    expect(console.get_by_role("heading", name="Cluster well", exact=True)).to_be_visible()


def test_segments_audiences_and_people_are_shown_as_ever(console: Page, server: ServerProcess) -> None:
    expect(console.get_by_role("link", name="reds")).to_be_visible()
    console.get_by_role("link", name="Customers").click()
    console.get_by_label("Value").fill("u-7")
    console.get_by_role("button", name="Look up").click()
    expect(console.get_by_role("table")).to_contain_text("red")
    with server.client(server.private_key) as client:
        wait_until(lambda: client.get("/v3/status").json()["store"]["identifiers"] == 50)
