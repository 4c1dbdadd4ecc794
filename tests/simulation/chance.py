"""Everything that is left to chance, from one seed: what happens, which faults, and the trace that proves a replay."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import Any, Final, TypeVar

T = TypeVar("T")

FAULTS: Final = {
    "commit_disk_full": "the disk is full: a commit of the journal is not written",
    "commit_map_full": "the LMDB map of the journal is full: a commit is not written",
    "commit_lost": "an I/O error in a commit of the journal, which is not on disk",
    "commit_unknown": "an I/O error in a commit of the journal, which is on disk all the same",
    "slow_sync": "a call that syncs takes seconds",
    "fold_disk_full": "the disk is full: a fold, a sweep or a copy of the index is not written",
    "fold_lost": "an I/O error in a transaction of the index, which is not on disk",
    "fold_unknown": "an I/O error in a transaction of the index, which is on disk all the same",
    "file_disk_full": "the disk is full: a file or the names in a folder cannot be synced",
    "thread_not_started": "the machine has no thread left for work that blocks",
    "child_not_started": "a child process cannot be started",
    "child_died_before": "a child process dies before it does what it was asked for",
    "child_died_after": "a child process dies when it has done it, before it answers",
    "clock_set": "the clock of the day is set ahead, by a second or by a day; no other clock is",
    "client_gone": "a client goes away before it is answered",
    "crash_killed": "kill -9: everything that was written is there",
    "crash_power": "power loss: everything that was not synced is lost",
    "crash_torn": "power loss: of what was not synced each piece is there, lost or cut off, by chance",
    "restart": "an orderly stop and start under load",
}
"""Every fault by name. A crash strikes at a moment in virtual time or between two operations of the disk."""

CRASHES: Final = ("crash_killed", "crash_power", "crash_torn")
_OFF_SHARE: Final = 0.4
_RATES: Final = (0.01, 0.03, 0.1, 0.3)
# These end the writing of a life, so that little else could be seen if they were as frequent.
_FATAL: Final = {"commit_lost", "commit_unknown"}


class Chance:
    """The dice of one run. Each seed switches some faults off, so that each is seen alone and with others."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.counted: Counter[str] = Counter()
        """Faults that struck, by name."""
        self.armed = False
        """Whether faults may strike now; not while a start is under way, and not after a crash."""
        self._rates = {name: self._rate(name) for name in FAULTS}

    def _rate(self, name: str) -> float:
        rate = 0.0 if self.random.random() < _OFF_SHARE else self.random.choice(_RATES)
        return rate / 5 if name in _FATAL else rate

    def strikes(self, name: str) -> bool:
        """Whether this fault happens here and now."""
        if not self.armed or self.random.random() >= self._rates[name]:
            return False
        self.counted[name] += 1
        return True

    def first(self, names: Sequence[str]) -> str | None:
        """The first of these faults that happens here and now."""
        return next((name for name in names if self.strikes(name)), None)

    def one_in(self, count: int) -> bool:
        """True once in `count` times."""
        return self.random.randrange(count) == 0

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return self.random.choice(choices)

    def delay(self) -> float:
        """Virtual seconds that a step takes: mostly short, with equal ones among them."""
        return self.pick((0.0, 0.0, 0.0005, 0.001, 0.001, self.random.uniform(0, 0.01)))


class Trace:
    """What happened, in order. Two runs that say the same have the same digest."""

    def __init__(self, *, keep: bool = False) -> None:
        """keep: remember the lines, for people."""
        self._hash = blake2b(digest_size=16)
        self.lines: list[str] | None = [] if keep else None

    def say(self, seconds: float, *words: Any) -> None:
        """Note that something happened. seconds: virtual time."""
        line = f"{seconds:12.6f} {' '.join(map(str, words))}"
        self._hash.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Of all that was said."""
        return self._hash.hexdigest()
