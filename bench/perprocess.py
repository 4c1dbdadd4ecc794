"""What each process of a server with followers uses: processor time, and memory by what it is made of.

Owns who is who among the processes, and what /proc says of them. Never starts or stops anything.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from bench.processes import cpu_seconds_of

Role = Literal["owner", "followers", "children"]
_KIB: Final = 1024
_STORE: Final = ".mdb"  # LMDB's files: data.mdb, and lock.mdb, the table of readers


class Memory(msgspec.Struct, kw_only=True):
    """Resident bytes of a process. What is proportional counts a page that n processes have mapped as 1/n."""

    resident: int = 0
    proportional: int = 0
    store: int = 0
    """Pages of LMDB's files, which all processes share with each other and with the system's cache."""
    store_dirty: int = 0
    """Those of them that are this process's own: a reader has none."""
    anonymous: int = 0
    """Heap and stacks, the overlay among them: what one more process costs."""


def memory_of(pid: int) -> Memory:
    """From smaps, which names the file of every mapping."""
    memory, name = Memory(), ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        field, _, value = line.partition(":")
        if " " in field:  # the head of a mapping: addresses, rights, offset, device, inode, file
            name = line.split(None, 5)[5] if line.count(" ") > 4 and len(line.split(None, 5)) > 5 else ""
        elif field in ("Rss", "Pss", "Anonymous", "Private_Dirty"):
            _count(memory, field, int(value.split()[0]) * _KIB, stored=name.endswith(_STORE))
    return memory


def _count(memory: Memory, field: str, size: int, *, stored: bool) -> None:
    if field == "Rss":
        memory.resident += size
        memory.store += size if stored else 0
    elif field == "Pss":
        memory.proportional += size
    elif field == "Private_Dirty":
        memory.store_dirty += size if stored else 0
    else:
        memory.anonymous += size


def roles(pids: Sequence[int]) -> dict[int, Role]:
    """pids: of one server, the owner first. Checkpointer and the like are `children`."""
    followers = {pid for pid in pids if _is_follower(pid)}
    return {pid: "owner" if pid == pids[0] else "followers" if pid in followers else "children" for pid in pids}


def pin(pids: Sequence[int], *, owner_cpu: int, follower_cpu: int) -> None:
    """Give owner and followers a core each; children go wherever there is room."""
    for pid, role in roles(pids).items():
        if role != "children":
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {owner_cpu if role == "owner" else follower_cpu})


@contextlib.contextmanager
def processor_time(pids: Sequence[int]) -> Iterator[dict[str, float]]:
    """Gives seconds of processor time by role, user and system, filled in at the end."""
    before = {pid: cpu_seconds_of([pid]) for pid in pids}
    seconds: dict[str, float] = {"owner": 0.0, "followers": 0.0, "children": 0.0}
    yield seconds
    for pid, role in roles(pids).items():
        seconds[role] += max(0.0, cpu_seconds_of([pid]) - before[pid])


def _is_follower(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child of the owner may end at any moment
        return b"segmentd.follower" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False
