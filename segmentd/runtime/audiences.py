"""Audience ids and their numbers.

A number is given when an audience is first heard of, and becomes durable with the first journal record after that
(the committer asks for `unsaved`). Until then nothing on disk speaks of it, so a crash may forget it.
"""

from collections.abc import Iterable, Mapping

from segmentd.domain.events import Change
from segmentd.domain.membership import AUDIENCE_NUMBER_MAX, V_BITS
from segmentd.domain.refusals import LimitReached
from segmentd.domain.shard import Word


class AudienceTable:
    """Plain calls on the loop's thread."""

    def __init__(self, audiences_max: int) -> None:
        self._audiences_max = min(audiences_max, AUDIENCE_NUMBER_MAX + 1)
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._unsaved: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def load(self, stored: Mapping[int, str]) -> None:
        """Take over the audiences of the store."""
        self._ids = dict(stored)
        self._numbers = {audience_id: number for number, audience_id in stored.items()}

    def number(self, audience_id: str) -> int | None:
        """The number of an audience, None if it was never heard of."""
        return self._numbers.get(audience_id)

    def id(self, number: int) -> str:
        """The id of a number that is in use."""
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

    def _add(self, audience_ids: set[str]) -> None:
        if len(self._numbers) + len(audience_ids) > self._audiences_max:
            raise LimitReached(
                "data.audience_id",
                f"There are {len(self._numbers)} audiences and the request would add {len(audience_ids)};"
                f" at most {self._audiences_max} are allowed ([limits] audiences_max).",
                "audiences_max",
                self._audiences_max,
            )
        for audience_id in sorted(audience_ids):
            number = len(self._ids)
            self._ids[number] = audience_id
            self._numbers[audience_id] = number
            self._unsaved.append((number, audience_id))
