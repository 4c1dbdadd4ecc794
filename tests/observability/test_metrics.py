"""What operators read: the documented metrics are those of a real server, and the alert rules use no others."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.members.service import wait_until
from tests.programs import find_program
from tests.serverprocess import ServerProcess
from tests.sources import ROOT

ALERTS = ROOT / "deploy" / "prometheus"
PROMTOOL = find_program("promtool")
# Where nobody listens; the metrics of traces are there as soon as they are on.
NOBODY = "http://127.0.0.1:9/v1/traces"


def _exported(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (segmentd_\w+) (\w+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    sections: dict[str, dict[str, Any]] = {"server": {"followers": 1}, "traces": {"endpoint": NOBODY}}
    with ServerProcess(tmp_path_factory.mktemp("server"), sections) as server, server.client() as client:
        wait_until(lambda: "segmentd_following_record" in client.get("/metrics").text)
        return {name: kind for name, kind in _exported(client.get("/metrics").text).items() if "_created" not in name}


def test_every_metric_of_a_real_server_is_documented_with_its_type(exported: dict[str, str]) -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(segmentd_\w+)` \| (\w+) \|", text, re.MULTILINE))
    # A node of a cluster exports some of its own: tests/cluster/test_observed.py.
    assert {name: kind for name, kind in documented.items() if not name.startswith("segmentd_cluster_")} == exported


def test_alert_rules_use_only_metrics_that_a_real_server_exports(exported: dict[str, str]) -> None:
    expressions = re.findall(r"expr: (.*)", (ALERTS / "alerts.yml").read_text(encoding="utf-8"))
    used = {name for expression in expressions for name in re.findall(r"segmentd_\w+", expression)}
    # A node of a cluster exports some of its own, all of them documented: tests/cluster/test_observed.py.
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    of_clusters = set(re.findall(r"^\| `(segmentd_cluster_\w+)`", page, re.MULTILINE))
    assert used & of_clusters
    assert used <= set(exported) | of_clusters


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("command", [("check", "rules"), ("test", "rules")], ids=" ".join)
def test_promtool_accepts_the_alert_rules(command: tuple[str, str]) -> None:
    assert PROMTOOL is not None
    file: Path = ALERTS / ("alerts.yml" if command[0] == "check" else "alerts_test.yml")
    done = subprocess.run([PROMTOOL, *command, file.name], cwd=ALERTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
