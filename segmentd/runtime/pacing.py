"""Pacing: keeps a journal that grows faster than it is folded from growing on.

Writing a journal record is much cheaper than folding its changes into a large index, so a client that sends as fast as
it can would fill the journal and then be refused for seconds at a time. Instead commits are slowed down, smoothly, as
soon as the journal is larger than a checkpoint should leave it: by the time that folding what was just committed takes,
more when the journal is larger still. Whoever waits for answers before sending more then runs at the rate of the
checkpointer, at a steady latency; whoever does not fills the queue and gets 503.
"""

from typing import Final

PAUSE_SECONDS_MAX: Final = 0.25
_RATE_WEIGHT: Final = 0.3
"""Of the newest measurement in the mean rate."""


class Pacing:
    """Plain arithmetic; the committer sleeps."""

    def __init__(self, paced_bytes: int) -> None:
        """paced_bytes: the journal's size from which on commits are slowed down."""
        self._paced_bytes = paced_bytes
        self._changes_per_second = 0.0

    def folded(self, changes: int, seconds: float) -> None:
        """A measurement of the checkpointer's rate."""
        if changes and seconds > 0:
            rate = changes / seconds
            before = self._changes_per_second or rate
            self._changes_per_second = before + _RATE_WEIGHT * (rate - before)

    def pause_seconds(self, changes: int, journal_bytes: int) -> float:
        """How long to wait after committing `changes`, while the journal holds `journal_bytes`."""
        if journal_bytes <= self._paced_bytes or not self._changes_per_second:
            return 0.0
        share = journal_bytes / self._paced_bytes
        return min(PAUSE_SECONDS_MAX, changes / self._changes_per_second * share)
