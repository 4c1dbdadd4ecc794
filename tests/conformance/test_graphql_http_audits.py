"""The GraphQL endpoint speaks GraphQL over HTTP: every audit of the npm package `graphql-http` passes."""

import json
import subprocess
from pathlib import Path

from tests.serverprocess import ServerProcess

AUDITS_MIN = 55
"""graphql-http 1.23.1 has 61; far fewer would mean that the list was not run."""


def test_every_audit_passes_without_warning_or_notice(server: ServerProcess, javascript: Path) -> None:
    command = ["node", "audits.mjs", f"{server.url}/v3/graphql", server.public_key]
    node = subprocess.run(command, cwd=javascript, capture_output=True, text=True, check=False)
    assert node.returncode == 0, node.stderr
    results = json.loads(node.stdout)
    assert len(results) > AUDITS_MIN
    assert [result for result in results if result["status"] != "ok"] == []
