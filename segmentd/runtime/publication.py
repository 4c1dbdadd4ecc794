"""What followers may show, and what of it this process does not show yet itself.

The owner publishes a record when it is on disk and before it merges any of it, so followers are never behind the owner.
For the time of the merge the owner is behind them: whoever read a new decision from a follower must not read the older
one here afterwards. So while there are followers, whatever shows the store's state waits for `merged` first.

Invariant: without followers nothing is ever behind, and nobody waits.
"""

import trio

from segmentd.storage.visible import Visible


class Publication:
    """Plain calls on the loop's thread; `merged` from anywhere on the loop."""

    def __init__(self, visible: Visible | None) -> None:
        """visible: the page that followers look at, None if there are none."""
        self._visible = visible
        self._merging: dict[int, trio.Event] = {}
        self.record = 0
        """Number of the last record that may be seen; the index is to stand for no later one."""

    def publish(self, record: int) -> None:
        """A record is on disk; nothing of it was shown yet. `shown` must follow."""
        if self._visible is not None:
            self._merging[record] = trio.Event()
        self.resume(record)

    def resume(self, record: int) -> None:
        """After recovery: everything up to this record is shown here."""
        self.record = record
        if self._visible is not None:
            self._visible.publish(record)

    def shown(self, record: int) -> None:
        """The record is merged, here too."""
        merging = self._merging.pop(record, None)
        if merging is not None:
            merging.set()

    def is_behind(self) -> bool:
        """Whether followers may show something that this process does not show yet."""
        return bool(self._merging)

    async def merged(self) -> None:
        """Wait until everything that is published now is merged; what is published meanwhile is not waited for."""
        for merging in list(self._merging.values()):
            await merging.wait()
