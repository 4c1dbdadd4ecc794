"""What may be true of one piece of state, given what clients were told: all possible worlds, and no others.

A request that is under way may take effect at any moment until it is answered. So a piece of state is a set of worlds,
each a value and the requests under way that took effect in it. An acknowledgement keeps the worlds in which the request
took effect, a refusal those in which it did not, a look at the state those with the value that was seen. When no world
is left, a promise was broken, and no order of the requests explains what was seen.

This knows nothing of journal, index and shards: it is the promise, not the program.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

Act = Callable[[S], tuple[S, Hashable] | None]
"""(state) → (state after, answer), or None where it cannot happen now."""

WORLDS_MAX = 20_000
"""More of them would mean that the run has too much under way; none comes near it."""


class BrokenPromiseError(AssertionError):
    """No possible world is left."""


class Register(Generic[S]):
    """One piece of state."""

    def __init__(self, name: str, state: S) -> None:
        self.name = name
        self._worlds: set[tuple[S, frozenset[tuple[str, Hashable]]]] = {(state, frozenset())}
        self._acts: dict[str, Act[S]] = {}
        self.version = 0
        """Rises when something begins."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        return not self._acts

    def states(self) -> set[S]:
        """What it may be now."""
        self._expand()
        return {state for state, _ in self._worlds}

    def begin(self, request: str, act: Act[S]) -> None:
        """A request is under way."""
        self._expand()
        self._acts[request] = act
        self.version += 1

    def done(self, request: str, answer: Hashable = None) -> None:
        """It was acknowledged with this answer. Raises BrokenPromiseError."""
        self._expand()
        self._end(request, lambda applied: (request, answer) in applied, f"{request} was acknowledged: {answer}")

    def refused(self, request: str) -> None:
        """It was refused, and has no effect. Raises BrokenPromiseError."""
        self._expand()
        self._end(request, lambda applied: all(name != request for name, _ in applied), f"{request} was refused")

    def ended(self, request: str) -> None:
        """It took effect by now or never will; nobody knows."""
        self._expand()
        self._end(request, lambda _: True, "")

    def stopped(self, request: str) -> None:
        """It took effect by now or never will, and `settle` will tell."""
        self._expand()
        del self._acts[request]

    def settle(self, request: str, *, applied: bool) -> None:
        """Whether a request that was `stopped` took effect is known now. Raises BrokenPromiseError."""
        self._end(request, lambda held: any(name == request for name, _ in held) == applied, f"{request}: {applied}")

    def seen(self, is_so: Callable[[S], bool], what: object) -> None:
        """Somebody has looked. Raises BrokenPromiseError."""
        self._expand()
        self._keep({world for world in self._worlds if is_so(world[0])}, f"seen: {what}")

    def _end(self, request: str, keep: Callable[[frozenset[tuple[str, Hashable]]], bool], why: str) -> None:
        self._acts.pop(request, None)
        kept = {
            (state, frozenset(each for each in applied if each[0] != request))
            for state, applied in self._worlds
            if keep(applied)
        }
        self._keep(kept, why)

    def _keep(self, worlds: set[tuple[S, frozenset[tuple[str, Hashable]]]], why: str) -> None:
        if not worlds:
            before = sorted(map(str, {state for state, _ in self._worlds}))
            raise BrokenPromiseError(f"{self.name}: {why}; possible was only {before}, under way {sorted(self._acts)}")
        self._worlds = worlds

    def _expand(self) -> None:
        """Let everything that is under way happen, in every order."""
        if not self._acts:
            return
        fresh = list(self._worlds)
        while fresh:
            state, applied = fresh.pop()
            names = {name for name, _ in applied}
            for request, act in self._acts.items():
                if request in names or (outcome := act(state)) is None:
                    continue
                world = outcome[0], applied | {(request, outcome[1])}
                if world not in self._worlds:
                    self._worlds.add(world)
                    fresh.append(world)
        assert len(self._worlds) <= WORLDS_MAX, f"{self.name}: too much is under way"
