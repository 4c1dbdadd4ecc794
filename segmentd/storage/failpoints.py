"""Named places at which a test can make the process die, as `kill -9` would, or wait, as for a disk that stalls.

`SEGMENTD_FAILPOINT=name` or `name:n` (the n-th time) in the environment; `name:file` where it waits. Without it every
call costs one comparison.
"""

import os
import signal
import time
from math import inf
from pathlib import Path

_name, _, _argument = os.environ.get("SEGMENTD_FAILPOINT", "").partition(":")
_remaining = int(_argument) if _argument.isdigit() else 1
_POLL_SECONDS = 0.002


def hit(name: str, *, parent: bool = False) -> None:
    """Die here if the environment says so; with `parent` (in the checkpointer) take the serving process along."""
    global _remaining  # noqa: PLW0603  # one counter a process is what is meant
    if not _name or name != _name:
        return
    _remaining -= 1
    if _remaining <= 0:
        if parent:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def wait(name: str) -> None:
    """Where the environment says so, wait for the seconds in its file; while it is there, if there are none in it."""
    if not _name or name != _name:
        return
    start = time.monotonic()
    while time.monotonic() - start < _seconds(Path(_argument)):
        time.sleep(_POLL_SECONDS)


def _seconds(file: Path) -> float:
    try:
        return float(file.read_text() or inf)
    except FileNotFoundError:
        return 0.0
