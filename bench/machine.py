"""The facts that a result means nothing without: machine, versions, commit.

Owns what is asked of the machine, and the check for the tools that a run needs.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from bench.processes import BenchError

PACKAGES: Final = (
    *("trio", "hypercorn", "quart-trio", "graphql-core", "lmdb", "msgspec", "httptools"),
    *("fastapi", "uvicorn", "uvloop", "redis", "hiredis", "pydantic", "ariadne"),
)
TOOLS: Final = {"wrk": "wrk", "redis-server": "redis-server", "taskset": "util-linux"}


def require_tools(names: Sequence[str]) -> None:
    """Install what is missing from Debian where this user may; raises BenchError with the package's name otherwise."""
    missing = [TOOLS[name] for name in names if shutil.which(name) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(f"missing programs; install the Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    for command in (["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode and command is install:
            raise BenchError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")


def facts() -> dict[str, str]:
    """Machine, versions and commit, for the head of a result."""
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, Linux {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "redis": _first_line(["redis-server", "--version"]),
        "wrk": _first_line(["wrk", "-v"]),
        "commit": commit(),
        "load average before": "{:.2f}, {:.2f}, {:.2f}".format(*os.getloadavg()),
    }


def commit() -> str:
    """The short hash, with `+changes` where the package differs from it."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "no-commit"
    short = _first_line(["git", "-C", str(root), "rev-parse", "--short", "HEAD"])
    changed = _first_line(["git", "-C", str(root), "status", "--porcelain", "--", "segmentd", "bench"])
    return f"{short}+changes" if changed else short


def _first_line(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0].strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
