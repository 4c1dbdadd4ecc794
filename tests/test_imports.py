"""Imports point one way: http, graphql → runtime → storage → domain. Only service.py, cli.py and commands see all."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOT, name_of, python_files, tree

# Modules at the top that know nothing else of segmentd and serve the parts at the edge.
ALONE = {
    "audiencemetrics",
    "clustermetrics",
    "keyfile",
    "lateness",
    "logs",
    "processmetrics",
    "supervisor",
    "telemetry",
    "tracing",
}

# What both kinds of processes are wired with.
AROUND = {"identifiers", "settings", "tracedparts"}

# What each part of segmentd may import from segmentd, beside itself.
MAY_IMPORT = {
    "audiencemetrics": set[str](),
    "clustermetrics": set[str](),
    "domain": set[str](),
    "settings": set[str](),
    "keyfile": set[str](),
    "lateness": set[str](),
    "logs": {"logstream"},
    "logstream": set[str](),
    "processmetrics": set[str](),
    "requestmetrics": set[str](),
    "supervisor": set[str](),
    "telemetry": {"audiencemetrics", "logs", "requestmetrics"},
    "tracing": {"logs", "otlp", "settings"},
    "otlp": {"settings", "tracing"},
    "tracedparts": {"http", "graphql", "runtime", "domain", "settings", *ALONE},
    "storage": {"domain", "settings"},
    "runtime": {"storage", "domain", "settings"},
    "cluster": {"runtime", "storage", "domain", "settings", "keyfile"},
    "migration": {"cluster", "storage", "domain", "settings", "keyfile"},
    "graphql": {"runtime", "domain", "settings"},
    "http": {"graphql", "runtime", "domain", "settings", *ALONE},
    "followers": {"http", "graphql", "runtime", "storage", "domain", "settings", *ALONE},
    "follower": {"followers", "http", "graphql", "runtime", "storage", "domain", "settings", *AROUND, *ALONE},
    "identifiers": {"domain", "settings"},
    "client": set[str](),
    "storekind": {"tracedparts", "http", "graphql", "runtime", "storage", "domain", "settings", *ALONE},
    "embedded": {
        "storekind",
        "followers",
        "identifiers",
        "http",
        "graphql",
        "runtime",
        "storage",
        "domain",
        "settings",
    },
    "clustered": {"storekind", "cluster", "clustermetrics", "graphql", "runtime", "domain", *AROUND},
    "opening": {"storekind", "http", "settings", "tracedparts", *ALONE},
    "service": {
        "storekind",
        "embedded",
        "clustered",
        "opening",
        "http",
        "runtime",
        "storage",
        "settings",
        *AROUND,
        *ALONE,
    },
    "commands": {"client", "cluster", "migration", "service", "storage", "domain", "settings", *ALONE},
    "cli": {
        "commands",
        "logstream",
        "service",
        "storekind",
        "http",
        "graphql",
        "runtime",
        "storage",
        "domain",
        "settings",
        *ALONE,
    },
    "__main__": {"cli"},
}

# The only packages from elsewhere that a part may import. A part that is not named may import any.
OUTSIDE_ONLY = {
    "domain": {"msgspec"},
    "settings": {"msgspec"},
    "keyfile": {"msgspec"},
    "storage": {"lmdb", "msgpack", "msgspec", "structlog"},
    "graphql": {"graphql", "msgspec", "structlog"},
    "client": {"httpx", "msgspec", "trio"},
}

# No I/O, no clock, no chance and no concurrency in the domain: everything it needs is an argument.
NOT_IN_DOMAIN = {"asyncio", "io", "os", "pathlib", "random", "secrets", "socket", "subprocess", "threading", "time"}

# Trio is the one event loop.
NOWHERE = {"asyncio"}

# Who holds what: a library that one part owns is imported nowhere else.
OWNED = {
    "lmdb": {"storage"},
    "graphql": {"graphql"},
    "quart": {"http"},
    "quart_trio": {"http"},
    "hypercorn": {"http", "service"},
    "click": {"cli", "commands"},
    "httpx": {"client"},
    "coredis": {"cluster"},
    "opentelemetry": {"otlp"},
    "prometheus_client": {"audiencemetrics", "clustermetrics", "processmetrics", "requestmetrics", "telemetry"},
}


def imported(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a module, those inside functions included."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level
            elif node.module == "segmentd":
                yield from ((node.lineno, f"segmentd.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def wrong_imports(part: str, module: ast.Module) -> list[tuple[int, str]]:
    """Every import of `module`, which belongs to `part` of segmentd, that points the wrong way."""
    return [(line, name) for line, name in imported(module) if not _is_allowed(part, name)]


def _is_allowed(part: str, name: str) -> bool:
    top, _, rest = name.partition(".")
    if top == "segmentd":
        target = rest.partition(".")[0]
        return target in {part, "", "__version__"} or target in MAY_IMPORT[part]
    if top == "" or top in NOWHERE or (part == "domain" and top in NOT_IN_DOMAIN):
        return False
    if top in sys.stdlib_module_names:
        return True
    return top in OUTSIDE_ONLY.get(part, {top}) and part in OWNED.get(top, {part})


def part_of(path: Path) -> str:
    """The part of segmentd that a file belongs to: its package, or its own name at the top."""
    first = path.relative_to(ROOT / "segmentd").parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", python_files("segmentd"), ids=name_of)
def test_imports_point_towards_the_domain(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert list(imported(tree(path))) == []
        return
    assert part in MAY_IMPORT, f"{part} is a new part of segmentd: say in MAY_IMPORT what it may import"
    assert wrong_imports(part, tree(path)) == []


@pytest.mark.parametrize(
    ("part", "statement"),
    [
        ("domain", "import segmentd.storage.journal"),
        ("domain", "from segmentd import storage"),
        ("domain", "import trio"),
        ("domain", "import time"),
        ("storage", "from segmentd.runtime.committer import Committer"),
        ("storage", "import trio"),
        ("runtime", "from segmentd.http import app"),
        ("runtime", "import lmdb"),
        ("graphql", "from segmentd.storage.index import Index"),
        ("graphql", "from segmentd.http.errors import x"),
        ("http", "from segmentd.storage.journal import Journal"),
        ("http", "import asyncio"),
        ("http", "from . import app"),
        ("http", "from segmentd import service"),
        ("service", "from segmentd.cli import main"),
        ("service", "import click"),
    ],
)
def test_an_import_the_wrong_way_is_found_even_inside_a_function(part: str, statement: str) -> None:
    assert len(wrong_imports(part, ast.parse(statement))) == 1
    assert len(wrong_imports(part, ast.parse(f"def function():\n    {statement}"))) == 1


@pytest.mark.parametrize(
    ("part", "statement"),
    [
        ("domain", "from segmentd.domain.events import parse_events"),
        ("domain", "import msgspec"),
        ("storage", "from segmentd.domain import membership"),
        ("runtime", "from segmentd.storage.journal import Journal"),
        ("graphql", "from graphql import parse"),
        ("http", "from segmentd.graphql.engine import GraphQLEngine"),
        ("cli", "from segmentd import __version__, service"),
    ],
)
def test_an_import_towards_the_domain_is_allowed(part: str, statement: str) -> None:
    assert wrong_imports(part, ast.parse(statement)) == []
