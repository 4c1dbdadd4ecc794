"""A write: what one request wants durable; and who is told of writes and their commits."""

from collections.abc import Callable, Sequence
from typing import Protocol

from segmentd.domain.segments import SegmentRecord
from segmentd.domain.shard import Word
from segmentd.runtime.mailbox import Reply


class CommitObserver(Protocol):
    """Told what happens, for metrics. Plain calls on the loop's thread; must not raise."""

    def committed(self, *, requests: int, changes: int, journal_bytes: int, seconds: float) -> None: ...
    def commit_failed(self) -> None: ...
    def checkpointed(self, *, changes: int, seconds: float) -> None: ...
    def checkpoint_failed(self) -> None: ...


class CommitWatch(Protocol):
    """Told of each write, for traces. Plain calls on the loop's thread; must not raise."""

    def queued(self, write: "Write") -> None:
        """It waits for a commit; called in the task that wants it."""

    def begun(self, group: Sequence["Write"]) -> None:
        """These are one commit."""

    def ended(self, group: Sequence["Write"], *, failed: bool) -> None:
        """They are on disk and visible, or they are refused; their replies come now."""


class Write:
    """What one request wants durable, and its reply (None, once it is durable and visible)."""

    __slots__ = ("changes", "deleted", "floors", "forgotten", "imported", "reply", "segments", "taken_ms", "visible")

    def __init__(
        self,
        changes: Sequence[Word] = (),
        *,
        imported: Sequence[Word] = (),
        taken_ms: int = 0,
        segments: Sequence[SegmentRecord] = (),
        floors: Sequence[tuple[int, int]] = (),
        forgotten: Sequence[tuple[bytes, int]] = (),
        deleted: Sequence[tuple[int, int, int]] = (),
        visible: Callable[[], None] | None = None,
    ) -> None:
        """imported: changes that come from an import, whose list was taken at `taken_ms`. floors: (audience number, v).

        forgotten: (key, ms).

        deleted: (audience number, floor for its id, ms).
        visible: called once durable, just before the reply; plain code that makes the write be seen.
        """
        self.changes = changes
        self.imported = imported
        self.taken_ms = taken_ms
        self.floors = floors
        self.forgotten = forgotten
        self.deleted = deleted
        self.segments = segments
        self.visible = visible
        self.reply: Reply[None] = Reply()
