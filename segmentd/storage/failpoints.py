"""Named places at which a test can make the process die, as `kill -9` would.

`SEGMENTD_FAILPOINT=name` or `name:n` (the n-th time) in the environment; without it every call costs one comparison.
"""

import os
import signal

_name, _, _count = os.environ.get("SEGMENTD_FAILPOINT", "").partition(":")
_remaining = int(_count or 1)


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
