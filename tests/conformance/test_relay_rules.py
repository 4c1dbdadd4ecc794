"""The published schema keeps the Relay rules of @graphql-eslint, with the exceptions that `js/relay.mjs` argues."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.serverprocess import ServerProcess

WRONG = """
type Query { things: ThingConnection! }
type ThingConnection { edges: [String], pageInfo: PageInfo! }
type PageInfo { hasNextPage: Boolean! }
"""


def complaints(javascript: Path, folder: Path, schema: str) -> list[str]:
    """What the rules say about a schema, one line each."""
    path = folder / "schema.graphql"
    path.write_text(schema, encoding="utf-8")
    command = ["node", str(javascript / "relay.mjs"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return [f"line {one['line']}: {one['ruleId']}: {one['message']}" for one in found]


def test_the_schema_is_published_and_keeps_the_relay_rules(
    server: ServerProcess, javascript: Path, tmp_path: Path
) -> None:
    with server.client() as client:
        answer = client.get("/schema.graphql")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert complaints(javascript, tmp_path, answer.text) == []


def test_the_rules_find_a_connection_that_is_none(javascript: Path, tmp_path: Path) -> None:
    found = complaints(javascript, tmp_path, WRONG)
    for rule in ("relay-arguments", "relay-edge-types", "relay-page-info"):
        assert any(rule in line for line in found), found
