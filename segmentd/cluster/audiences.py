"""What the registry says of audiences, floors and forgotten identifiers, ready for the road of events.

Owns the numbers that this node gives to audiences for itself, so that the gate (`segmentd.domain.gate`) and words work
as they do in the embedded store. In the cluster an audience is its token. Plain calls on the loop's thread.
"""

from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import Final

import msgpack

from segmentd.cluster.keyspace import token_of
from segmentd.cluster.registry import Entry, Registry
from segmentd.domain.events import Change
from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, ts_ms_of, v_of_word
from segmentd.domain.refusals import LimitReached
from segmentd.domain.shard import Word
from segmentd.runtime.audiences import Deletion

AUDIENCE: Final = b"a:"
FLOOR: Final = b"f:"
FORGOTTEN: Final = b"x:"
SWEPT: Final = b"w:"
_DELETION_NUMBERS: Final = 10**18
"""A deletion's number has 18 digits at most: more are none for whoever asks (`segmentd.http.audiences`)."""


def audience_entry(audience_id: str, deletions: int, floor: int) -> Entry:
    """Says that an audience exists that was deleted so often before. floor: what its deletions have left, or 0."""
    return Entry(AUDIENCE + audience_id.encode(), 2 * deletions, msgpack.packb((floor, 0)))


def deletion_entry(audience_id: str, deletions: int, floor: int, deleted_ms: int) -> Entry:
    """Says that it exists no more. floor: of whoever bears its id next."""
    return Entry(AUDIENCE + audience_id.encode(), 2 * deletions + 1, msgpack.packb((floor, deleted_ms)))


def floor_entry(token: bytes, v: int) -> Entry:
    """Says that qualifications of an audience below `v` do not count."""
    return Entry(FLOOR + token, v, b"")


def forgotten_entry(mark: bytes, forgotten_ms: int) -> Entry:
    """Says that nothing from before brings an identifier back."""
    return Entry(FORGOTTEN + mark, forgotten_ms, b"")


def swept_entry(token: bytes) -> Entry:
    """Says that nothing of a deleted audience is left."""
    return Entry(SWEPT + token, 1, b"")


class Audiences:
    """Follows the registry."""

    def __init__(self, registry: Registry, salt: bytes, audiences_max: int) -> None:
        """Takes over what the registry's copy has."""
        self.gate = Gate(salt)
        self._registry = registry
        self._audiences_max = audiences_max
        self._numbers: dict[str, int] = {}
        self._by_token: dict[bytes, int] = {}
        self._tokens: list[bytes] = []
        self._ids: list[str] = []
        self._floors: dict[str, int] = {}
        self._pending_floors: dict[bytes, int] = {}
        self.deletions: dict[int, Deletion] = {}
        """By number. Outside, where all nodes must mean the same, a deletion's number is made of the token."""
        for entry in registry.entries(b""):
            self._take(entry)
        registry.on_entry.append(self._take)

    def __len__(self) -> int:
        return len(self._numbers)

    def ids(self) -> list[str]:
        """Of all audiences that exist, sorted."""
        return sorted(self._numbers)

    def number(self, audience_id: str) -> int | None:
        """This node's number of an audience, None if it does not exist."""
        return self._numbers.get(audience_id)

    def id(self, number: int) -> str:
        """The reverse, also for one that was deleted."""
        return self._ids[number]

    def token(self, number: int) -> bytes:
        """What stands for it in the cluster."""
        return self._tokens[number]

    def by_token(self, token: bytes) -> int | None:
        """The number of an audience that exists, None for any other token."""
        number = self._by_token.get(token)
        return None if number is None or number in self.deletions else number

    def next_token(self, audience_id: str) -> bytes:
        """The token of an audience as it is, or as it will be when it is first heard of."""
        number = self._numbers.get(audience_id)
        return token_of(audience_id, self.deleted_times(audience_id)) if number is None else self._tokens[number]

    def deleted_times(self, audience_id: str) -> int:
        """How often an audience of this id was deleted."""
        rank = self._registry.rank(AUDIENCE + audience_id.encode())
        return (rank + 1) // 2 if rank >= 0 else 0

    def floor(self, audience_id: str) -> int:
        """Qualifications below it are void."""
        number = self._numbers.get(audience_id)
        floor = 0 if number is None else self.gate.floors.get(number, 0)
        return max(floor, self._floors.get(audience_id, 0))

    def last_import_ms(self, audience_id: str) -> int:
        """T of the latest import, 0 if there was none."""
        number = self._numbers.get(audience_id)
        floor = 0 if number is None else self.gate.floors.get(number, 0)
        # A floor that is not above that of a deletion before it is the deletion's.
        return ts_ms_of(floor) if floor > self._floors.get(audience_id, 0) else 0

    def unknown(self, changes: Iterable[Change], coming: Collection[str] = ()) -> set[str]:
        """Ids that no audience has yet. Raises LimitReached if there would be too many.

        coming: ids that will exist in a moment. Nodes that make audiences at the same moment may together make more.
        """
        numbers = self._numbers
        unknown = {audience_id for _, audience_id, _ in changes if audience_id not in numbers}
        if unknown and len(numbers) + len(unknown.union(coming) - numbers.keys()) > self._audiences_max:
            raise LimitReached(
                "data.audience_id",
                f"There are {len(numbers)} audiences and the request would add {len(unknown)};"
                f" at most {self._audiences_max} are allowed ([limits] audiences_max).",
                "audiences_max",
                self._audiences_max,
            )
        return unknown

    def words(self, changes: Iterable[Change]) -> list[Word]:
        """(key, word) of each change. Raises KeyError for an audience that does not exist."""
        numbers = self._numbers
        return [(key, numbers[audience_id] << V_BITS | v) for key, audience_id, v in changes]

    def admitted(self, words: Sequence[Word], taken_ms: int | None) -> Sequence[Word]:
        """Those that still count. taken_ms: of the list that they come from, None for events."""
        return self.gate.admit(words, inf if taken_ms is None else taken_ms)

    def came_late(self, words: Iterable[Word]) -> bool:
        """Whether any of them is about an audience that was deleted, and is newer than that."""
        deleted = self.gate.deleted
        return bool(deleted) and any(
            word >> V_BITS in deleted and v_of_word(word) >= self._floors[self._ids[word >> V_BITS]]
            for _, word in words
        )

    def _take(self, entry: Entry) -> None:
        kind, name = entry.field[:2], entry.field[2:]
        if kind == AUDIENCE:
            self._audience(name.decode(), entry.rank, entry.payload)
        elif kind == FLOOR:
            self._raise_floor(name, entry.rank)
        elif kind == FORGOTTEN:
            self.gate.forget(name, entry.rank)
        elif kind == SWEPT and (deletion := self.deletions.get(self._by_token.get(name, -1))) is not None:
            deletion.in_index = False

    def _audience(self, audience_id: str, rank: int, payload: bytes) -> None:
        deletions, is_deleted = divmod(rank, 2)
        floor, deleted_ms = msgpack.unpackb(payload)
        self._floors[audience_id] = max(floor, self._floors.get(audience_id, 0))
        for former in range(deletions - 1, -1, -1):
            # Deleted and heard of again since this node last looked: somebody has to sweep up what is left of it.
            token = token_of(audience_id, former)
            number = self._by_token.get(token)
            if number in self.deletions:
                break
            self._end(self._number_for(token, audience_id) if number is None else number, 0)
        token = token_of(audience_id, deletions)
        number = self._by_token.get(token)
        if number is None:
            number = self._number_for(token, audience_id)
            if not is_deleted:
                self._numbers[audience_id] = number
            floor = max(self._floors[audience_id], self._pending_floors.pop(token, 0))
            if floor:
                # Without any floor the gate has nothing to ask for.
                self.gate.raise_floor(number, floor)
        if is_deleted:
            self._end(number, deleted_ms)

    def _number_for(self, token: bytes, audience_id: str) -> int:
        number = self._by_token[token] = len(self._tokens)
        self._tokens.append(token)
        self._ids.append(audience_id)
        return number

    def _end(self, number: int, deleted_ms: int) -> None:
        audience_id = self._ids[number]
        if self._numbers.get(audience_id) == number:
            del self._numbers[audience_id]
        self.gate.deleted.add(number)
        floor = self._floors.get(audience_id, 0)
        swept = self._registry.get(SWEPT + self._tokens[number]) is not None
        public = int.from_bytes(self._tokens[number]) % _DELETION_NUMBERS
        self.deletions[number] = Deletion(public, audience_id, floor, deleted_ms, in_index=not swept)

    def _raise_floor(self, token: bytes, v: int) -> None:
        number = self._by_token.get(token)
        if number is None:
            self._pending_floors[token] = max(v, self._pending_floors.get(token, 0))
        else:
            self.gate.raise_floor(number, v)
