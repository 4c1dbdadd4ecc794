"""What is sent to the owner of a slot: a job is some commands and where their answers go; writes end in a WAIT."""

from collections.abc import Callable, Sequence
from typing import Final

from segmentd.cluster.link import Answers, Command
from segmentd.runtime.mailbox import Reply

PAUSE_SECONDS_FIRST: Final = 0.02
"""Before a job is tried again for the first time."""
_MARKS_MAX: Final = 4
"""One mark that was written is enough, but a slot that moves away takes none; slots move one at a time, or a few."""

RETRY_REASONS: Final = ("link", "moved", "asked", "stale", "functions", "replicas", "refused")
"""Why jobs are sent again: no connection or answer, the slot is elsewhere, it is moving, the registry has changed, the
server has no functions yet, too few replicas have acknowledged, anything else that a server says.
"""


class Job:
    """Commands for one slot. `reply` gets their answers, or StoreUnavailable."""

    __slots__ = ("commands", "deadline", "pause", "reason", "reply", "slot", "weight")

    def __init__(
        self, slot: int, commands: Callable[[], Sequence[Command]], deadline: float, *, weight: int = 1
    ) -> None:
        """commands: made anew for each attempt; none: there is nothing to do. deadline: of Trio's clock.

        weight: what it counts in a batch; 0 for what brings a new owner up to date, which passes where others wait.
        """
        self.slot = slot
        self.commands = commands
        self.deadline = deadline
        self.weight = weight
        self.pause = PAUSE_SECONDS_FIRST
        self.reason = "its slot has no owner, or one that is not up to date yet"
        self.reply: Reply[Answers] = Reply()


def job_of(slot: int, commands: Sequence[Command], deadline: float, *, weight: int = 1) -> Job:
    """A job whose commands are always the same."""
    return Job(slot, lambda: commands, deadline, weight=weight)


class Durability:
    """What a batch of writes is followed by."""

    def __init__(self, replicas_min: int, wait_ms_max: int, mark: Callable[[int], Command]) -> None:
        """replicas_min: how many replicas must have it on disk. mark: a write in a slot, always news to the server.

        A WAIT is about what its connection has written before; the mark is there for a batch that was no news because
        an earlier attempt, on a connection that was lost, has done it already.
        """
        self.replicas_min = replicas_min
        self.wait_ms_max = wait_ms_max
        self.mark = mark

    def commands(self, slots: Sequence[int]) -> list[Command]:
        """Behind the commands of the batch. slots: of its jobs, at least one; some may be moving away."""
        marked = list(dict.fromkeys(slots))[:_MARKS_MAX]
        wait = (b"WAIT", str(self.replicas_min).encode(), str(self.wait_ms_max).encode())
        return [*(self.mark(slot) for slot in marked), wait]

    def problem(self, answers: Answers) -> str | None:
        """What keeps the batch from being safe. answers: to what `commands` gave."""
        *marks, count = answers
        if all(isinstance(mark, Exception) for mark in marks):
            return str(marks[0])
        if not isinstance(count, int) or count < self.replicas_min:
            return f"{count} of {self.replicas_min} replicas have acknowledged ([store] replicas_acknowledged_min)"
        return None
