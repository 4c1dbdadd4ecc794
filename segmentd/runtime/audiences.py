"""Audience ids and their numbers.

A number is given when an audience is first heard of, and becomes durable with the first journal record after that
(the committer asks for `unsaved`). Until then nothing on disk speaks of it, so a crash may forget it. A number is never
given twice: a deleted audience leaves its number, and the memberships that still bear it, behind; so deleting is one
step for whoever looks, however long it takes to sweep up.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from segmentd.domain.events import Change
from segmentd.domain.freshness import Freshness
from segmentd.domain.membership import AUDIENCE_NUMBER_MAX, V_BITS
from segmentd.domain.refusals import LimitReached
from segmentd.domain.shard import Word


class Deletion(msgspec.Struct):
    """A deleted audience."""

    number: int
    audience_id: str
    floor: int
    """What a new audience of the same id begins with."""
    deleted_ms: int
    in_memory: bool = False
    """Whether shards may still hold memberships of it."""
    in_index: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is left."""
        return not (self.in_memory or self.in_index)


class AudienceTable:
    """Plain calls on the loop's thread."""

    def __init__(self, audiences_max: int) -> None:
        self._audiences_max = min(audiences_max, AUDIENCE_NUMBER_MAX + 1)
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._unsaved: list[tuple[int, str]] = []
        self._next_number = 0
        self.deletions: dict[int, Deletion] = {}
        """By the number that the audience had."""
        self._floors: dict[str, int] = {}
        self.freshness = Freshness()
        """Of what is durable."""

    def __len__(self) -> int:
        return len(self._numbers)

    def load(self, stored: Mapping[int, str], deletions: Iterable[Deletion] = ()) -> None:
        """Take over the audiences of the store; `stored` has the deleted ones too."""
        self._ids = dict(stored)
        self._next_number = max(stored, default=-1) + 1
        for deletion in deletions:
            self._note(deletion)
        self._numbers = {audience_id: number for number, audience_id in stored.items() if number not in self.deletions}

    def number(self, audience_id: str) -> int | None:
        """The number of an audience, None if it was never heard of (or not since it was deleted)."""
        return self._numbers.get(audience_id)

    def ids(self) -> list[str]:
        """The ids of all audiences, sorted."""
        return sorted(self._numbers)

    def by_number(self) -> Iterator[str]:
        """The ids of all audiences, those that were heard of first before the others."""
        return iter(self._numbers)

    def id(self, number: int) -> str:
        """The id of a number that is in use or was."""
        return self._ids[number]

    def words(self, changes: Iterable[Change]) -> list[Word]:
        """(key, word) of each (key, audience id, v), giving numbers to new audiences.

        Raises LimitReached if there would be too many audiences; then no number was given.
        """
        numbers = self._numbers
        try:
            return [(key, numbers[audience_id] << V_BITS | v) for key, audience_id, v in changes]
        except KeyError:
            self._add({audience_id for _, audience_id, _ in changes if audience_id not in numbers})
        return [(key, numbers[audience_id] << V_BITS | v) for key, audience_id, v in changes]

    def unsaved(self) -> list[tuple[int, str]]:
        """The (number, id) pairs that no journal record holds yet."""
        return list(self._unsaved)

    def saved(self, count: int) -> None:
        """The first `count` of `unsaved` are durable now."""
        del self._unsaved[:count]

    def inherited_floor(self, audience_id: str) -> int:
        """The floor that a new audience has from a deleted one of the same id, 0 if there was none."""
        return self._floors.get(audience_id, 0)

    def delete(self, number: int, floor: int, deleted_ms: int) -> None:
        """The deletion of `number` is durable; from now on its id is as good as unknown."""
        audience_id = self._ids[number]
        if self._numbers.get(audience_id) == number:
            del self._numbers[audience_id]
        self._note(Deletion(number, audience_id, floor, deleted_ms, in_memory=True, in_index=True))

    def _note(self, deletion: Deletion) -> None:
        self.deletions[deletion.number] = deletion
        audience_id = deletion.audience_id
        self._floors[audience_id] = max(deletion.floor, self._floors.get(audience_id, 0))

    def _add(self, audience_ids: set[str]) -> None:
        if len(self._numbers) + len(audience_ids) > self._audiences_max:
            raise LimitReached(
                "data.audience_id",
                f"There are {len(self._numbers)} audiences and the request would add {len(audience_ids)};"
                f" at most {self._audiences_max} are allowed ([limits] audiences_max).",
                "audiences_max",
                self._audiences_max,
            )
        if self._next_number + len(audience_ids) > AUDIENCE_NUMBER_MAX + 1:
            raise LimitReached(
                "data.audience_id",
                f"All of the {AUDIENCE_NUMBER_MAX + 1} numbers for audiences were used, deleted ones included;"
                " export the data and import it into a new store.",
                "audiences_max",
                self._audiences_max,
            )
        for audience_id in sorted(audience_ids):
            self._ids[self._next_number] = audience_id
            self._numbers[audience_id] = self._next_number
            self._unsaved.append((self._next_number, audience_id))
            self._next_number += 1
