"""The dashboard asks for nothing but what real servers export, Prometheus answers it, any Grafana can read it."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.docs.walk import free_port
from tests.members.service import TS, event, send, wait_until
from tests.observability.conftest import QUERY, Servers, labels_of
from tests.observability.promql import asked, without_variables
from tests.programs import find_program
from tests.sources import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "segmentd.json").read_text(encoding="utf-8"))
PROMTOOL, PROMETHEUS = find_program("promtool"), find_program("prometheus")
FOLLOWERS = "Followers"
CLUSTER = "Cluster"
# What Prometheus itself adds, and what it knows of every job.
FROM_PROMETHEUS = {"job", "instance"}
UP = {"up": set[str]()}
# Of a follower; an owner without followers has no such label, and grouping by it changes nothing there.
PROCESS = "process"
COLUMNS = 24
# Turns a panel without an answer into a failure.
ANSWER_SECONDS_MAX = 60.0


class Question(NamedTuple):
    """One query of a panel, with the title of its row."""

    row: str
    title: str
    expression: str
    legend: str


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def questions() -> Iterator[Question]:
    row = ""
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            yield Question(row, panel["title"], target["expr"], target["legendFormat"])


def of_one_machine() -> list[Question]:
    """All but the row of a cluster, which tests/cluster/test_observed.py asks of a node."""
    return [question for question in questions() if not question.row.startswith(CLUSTER)]


def unknown(question: Question, exported: dict[str, set[str]]) -> set[str]:
    """Metrics and labels that the question asks for and nobody exports."""
    selected, grouped = asked(question.expression)
    labels = set().union(FROM_PROMETHEUS, *(exported.get(name, set()) for name in selected))
    used = grouped | set(re.findall(r"\{\{(\w+)\}\}", question.legend))
    missing = {name for name in selected if name not in exported} | (used - labels)
    for name, its_labels in selected.items():
        missing |= {f"{name}.{label}" for label in its_labels - exported.get(name, set()) - FROM_PROMETHEUS}
    return missing


def test_every_metric_and_label_is_exported_by_a_real_server_with_followers(servers: Servers) -> None:
    with servers.followed.client() as client:
        exported = labels_of(client) | UP
    assert {question: missing for question in of_one_machine() if (missing := unknown(question, exported))} == {}


def test_all_but_the_row_of_followers_is_exported_by_a_server_that_has_none(servers: Servers) -> None:
    with servers.alone.client() as client:
        exported = labels_of(client) | UP
    wrong = {question for question in of_one_machine() if unknown(question, exported) - {PROCESS}}
    assert wrong
    assert {question for question in wrong if not question.row.startswith(FOLLOWERS)} == set()


def test_every_metric_is_on_the_dashboard(servers: Servers) -> None:
    """So that a new one is put there, or is argued here."""
    with servers.followed.client() as client:
        exported = {name for name in labels_of(client) if name.startswith("segmentd_") and "_created" not in name}
    shown = {name for question in questions() for name in asked(question.expression).selected}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported - shown} - {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in shown
    }
    assert families == {
        # Of use when a follower is looked into, and in its "behind" and "overlay" already.
        "segmentd_following_folded_changes_total",
        "segmentd_following_folded_records_total",
        "segmentd_following_overlay_entries",
        "segmentd_following_record",
        "segmentd_following_reloads_total",
    }


def test_grafana_can_read_it_in_any_installation() -> None:
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, "segmentd")
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == set(variables)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == source, panel["title"]
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
    assert all(not variable["current"] and not variable["options"] for variable in variables.values())


def test_no_panel_lies_on_another_or_beside_the_page() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= COLUMNS and at["w"] > 0 and at["h"] > 0 for at in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_every_expression(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    rules = [
        {"record": f"question:{number}", "expr": without_variables(question.expression)}
        for number, question in enumerate(questions())
    ]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [PROMTOOL, "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.fixture
def prometheus(servers: Servers, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a real Prometheus that scrapes both servers every second."""
    if PROMETHEUS is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    targets = [server.url.removeprefix("http://") for server in servers]
    job = {"job_name": "segmentd", "static_configs": [{"targets": targets}]}
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [
        PROMETHEUS,
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=tsdb",
        f"--web.listen-address={address}",
    ]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, cwd=tmp_path, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
                wait_until(lambda: is_ready(client))
                yield client
        finally:
            process.terminate()


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def answered(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def test_a_real_prometheus_has_an_answer_for_every_panel(servers: Servers, prometheus: httpx.Client) -> None:
    left = {question: without_variables(question.expression) for question in of_one_machine()}

    def unanswered() -> dict[Question, str]:
        for server in servers:
            with server.client(server.private_key) as client:
                send(client, [event("vip", ("fs_user_id", "u", TS + 1))])
                client.post("/v3/graphql", json={"query": QUERY})
        time.sleep(0.5)
        for question, expression in list(left.items()):
            # A rate over nothing is not a number, and says nothing.
            if any(sample["value"][1] != "NaN" for sample in answered(prometheus, expression)):
                del left[question]
        return left

    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while unanswered() and time.monotonic() < deadline:
        pass
    assert left == {}
