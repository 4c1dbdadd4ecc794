"""How fresh each audience is: the time of its latest event, as the events themselves tell it.

The largest `ts` wins, so what is held is a function of the *set* of events that count, like memberships: order,
repetition and recovery change nothing. Times of receipt would be lost with every restart, and would call a job fresh
that sends yesterday's decisions again.
"""

from collections.abc import Sequence

from segmentd.domain.membership import V_BITS, ts_ms_of, v_of_word, word_of
from segmentd.domain.shard import Word


class Freshness:
    """A plain value with methods; whoever owns it makes sure that one task at a time changes it."""

    def __init__(self) -> None:
        self._latest: list[int] = []
        """By audience number, the largest word of an event; a smaller number times 2**44 means none."""

    def note(self, changes: Sequence[Word]) -> None:
        """Take notice of changes that came from events, any order, any repetition.

        Runs once for each group that was committed, over all its changes: a comparison each (some 50 ns, of the
        6,000 ns that an event costs), because nothing in the standard library finds the maxima of groups faster.
        """
        latest = self._latest
        try:
            for _, word in changes:
                if word > latest[word >> V_BITS]:  # noqa: PLR1730  # `max` would be called for each
                    latest[word >> V_BITS] = word
        except IndexError:
            self._grow(max(word >> V_BITS for _, word in changes) + 1)
            self.note(changes)

    def load(self, audience: int, event_ms: int) -> None:
        """Take over what is stored of an audience. event_ms: 0 for none."""
        if event_ms:
            self.note([(b"", word_of(audience, event_ms * 2))])

    def event_ms(self, audience: int) -> int:
        """The largest `ts` of the audience's events, milliseconds since the epoch; 0 if there was none."""
        return ts_ms_of(v_of_word(self._latest[audience])) if audience < len(self._latest) else 0

    def _grow(self, audiences: int) -> None:
        # The least word of an audience is smaller than any that an event gives it, but for one at the very epoch.
        self._latest.extend(word_of(audience, 0) for audience in range(len(self._latest), audiences))
