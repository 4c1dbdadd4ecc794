"""How many of its connections a process should give to another one, so that all have about as many.

Whoever is woken first accepts a whole burst of connections, and what was moved because of events stays moved. So each
process looks now and then at what it has and what the others have, and gives away half of the difference, each one
at its next query. Owns that number.

Invariants:
1. A small difference stays: moving a connection costs more than it gives.
2. Nothing is given to an owner that has not said lately that it takes queries: it may be busy with events, late, or
   stuck.
3. A connection that went to and fro stays with a follower, where events do not hold its queries up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from segmentd.followers.channel import Channel, ChannelEndedError
from segmentd.followers.messages import Handed
from segmentd.followers.tally import OWNER, Tally

LOOK_SECONDS: Final = 0.05
DIFFERENCE_MIN: Final = 4
# The owner gives connections with up to 3 hops away; from here on, it gets none back.
_HOPS_MAX: Final = 2


class Balance:
    """What one process has to give away."""

    def __init__(self) -> None:
        self.surplus = 0
        """Connections that another process should have."""

    def compare(self, mine: int, others: int | None) -> None:
        """mine: connections here. others: where they would go; None if nowhere."""
        difference = 0 if others is None else mine - others
        self.surplus = difference // 2 if difference >= DIFFERENCE_MIN else 0

    async def watch(self, look: Callable[[], None]) -> None:
        """Have `look` compare, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            look()


class OwnerBeside:
    """The owner, as a follower's lanes see it. Implements `segmentd.http.elsewhere.Gives`."""

    def __init__(self, channel: Channel, tally: Tally, slot: int) -> None:
        """slot: of this follower in the tally."""
        self._channel = channel
        self._tally = tally
        self._slot = slot
        self._balance = Balance()

    def wants(self, hops: int) -> bool:
        """See Gives."""
        return self._balance.surplus > 0 and hops <= _HOPS_MAX

    def give(self, descriptor: int, begun: bytes, hops: int) -> bool:
        """See Gives."""
        try:
            sent = self._channel.send_now(Handed(begun, hops), descriptor)
        except ChannelEndedError:
            return False
        if sent:
            self._tally.sent(self._slot)
            self._balance.surplus -= 1
        return sent

    async def watch(self) -> None:
        """Look how many connections the owner has, until cancelled."""
        await self._balance.watch(self._look)

    def _look(self) -> None:
        tally = self._tally
        takes = tally.owner_takes()
        self._balance.compare(tally.open_in(self._slot), tally.load(OWNER) if takes else None)
