"""What was told to whom: every decision that was sent, whether it was acknowledged, and which states that explains.

Pure, and independent of segmentd's own code, so that a mistake there cannot hide here as well.

Invariants:
1. A decision about one (identifier, audience) is the number `v = ts_ms * 2 + (1 if it disqualifies)`; the greatest of
   those that were applied is the state. So a state is explained by the greatest acknowledged one, or by a greater one
   whose outcome is unknown; which others of unknown outcome were applied makes no difference.
2. A decision is of unknown outcome from before it is sent until it is acknowledged: 503 or a broken connection says
   nothing, since a store of several machines may have applied it, or may still do so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """Whom a decision is about."""

    identifier: str
    audience: str


class Decision(NamedTuple):
    """One event."""

    pair: Pair
    ts_ms: int
    qualify: bool

    @property
    def v(self) -> int:
        return self.ts_ms * 2 + (not self.qualify)

    def wire(self) -> dict[str, Any]:
        return {
            "type": "passthrough",
            "action": "qualify" if self.qualify else "disqualify",
            "identifiers": {"fs_user_id": self.pair.identifier},
            "data": {"audience_id": self.pair.audience, "ts": self.ts_ms / 1000},
        }


class Findings(NamedTuple):
    """What a look at everything brought to light.

    lost: acknowledged decisions whose effect is missing, by pair. unexplained: states that no decision brings about, by
    pair, with what would have been right. sizes: size shown and number of members seen, of audiences where they differ.
    """

    lost: dict[Pair, int]
    unexplained: dict[Pair, tuple[int | None, list[int | None]]]
    sizes: dict[str, tuple[int, int]]

    @property
    def lost_count(self) -> int:
        return sum(self.lost.values())

    def __str__(self) -> str:
        few = [f"{pair}: {told}" for pair, told in list(self.unexplained.items())[:5]]
        return (
            f"{self.lost_count} acknowledged decisions lost, about {len(self.lost)} pairs, such as "
            f"{list(self.lost)[:5]}; "
            f"{len(self.unexplained)} states unexplained (seen, right ones): {few}; "
            f"sizes wrong (shown, members seen): {self.sizes}"
        )


NOTHING_WRONG = Findings({}, {}, {})


class Ledger:
    """The decisions of one load, which no other client interferes with."""

    def __init__(self) -> None:
        self._acknowledged: dict[Pair, Counter[int]] = {}
        self._unknown: dict[Pair, Counter[int]] = {}
        self.acknowledged_count = 0
        self.unknown_count = 0

    def send(self, decisions: Iterable[Decision]) -> None:
        """They are about to be sent for the first time."""
        for decision in decisions:
            self._unknown.setdefault(decision.pair, Counter())[decision.v] += 1
            self.unknown_count += 1

    def acknowledge(self, decisions: Iterable[Decision]) -> None:
        """They were sent, and now they are acknowledged."""
        for decision in decisions:
            waiting = self._unknown[decision.pair]
            assert waiting[decision.v] > 0, f"{decision} was never sent"
            waiting[decision.v] -= 1
            self.unknown_count -= 1
            self.acknowledged_count += 1
            self._acknowledged.setdefault(decision.pair, Counter())[decision.v] += 1

    @property
    def identifiers(self) -> list[str]:
        """Every identifier that anything was sent about, sorted."""
        return sorted({pair.identifier for pair in self._unknown})

    @property
    def audiences(self) -> list[str]:
        """Every audience that anything was sent about, sorted."""
        return sorted({pair.audience for pair in self._unknown})

    def right_states(self, pair: Pair) -> list[int | None]:
        """The states of `pair` that are explained, the lowest first; None: nothing was ever decided."""
        best = max(self._acknowledged.get(pair, ()), default=None)
        waiting = [v for v, count in self._unknown.get(pair, Counter[int]()).items() if count > 0]
        return [best, *sorted(v for v in waiting if best is None or v > best)]

    def expected_size(self, audience: str) -> int | None:
        """The number of members of `audience`; None if it depends on decisions of unknown outcome."""
        states = [self.right_states(pair) for pair in self._unknown if pair.audience == audience]
        members = [{v is not None and v % 2 == 0 for v in possible} for possible in states]
        return None if any(len(possible) > 1 for possible in members) else sum(True in each for each in members)

    def compare(self, seen: Mapping[Pair, int | None], sizes: Mapping[str, int]) -> Findings:
        """seen: the state of every identifier in every audience, also of pairs that nothing was sent about."""
        missing = self._unknown.keys() - seen.keys()
        assert not missing, f"nobody looked at {sorted(missing)[:5]}"
        lost, unexplained = {}, {}
        members = dict.fromkeys(sizes, 0)
        for pair, v in seen.items():
            members[pair.audience] += v is not None and v % 2 == 0
            gone = self._lost(pair, v)
            if gone:
                lost[pair] = gone
            elif v not in (right := self.right_states(pair)):
                unexplained[pair] = (v, right)
        wrong = {name: (size, members[name]) for name, size in sizes.items() if size != members[name]}
        return Findings(lost, unexplained, wrong)

    def _lost(self, pair: Pair, v: int | None) -> int:
        """How many acknowledged decisions about `pair` are greater than the state that is seen."""
        told = self._acknowledged.get(pair, Counter[int]())
        return sum(count for each, count in told.items() if v is None or each > v)
