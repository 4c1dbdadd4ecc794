"""What is too old to count: the floors of audiences, forgotten identifiers, deleted audiences.

An import as of T says who the members were at T, all of them. So once it is through, a qualification from before T that
comes late is void: the import has already spoken about that time. The *floor* of an audience is the `v` of its latest
import, and qualifications below it are dropped, whatever the order in which events and imports arrive.

A forgotten identifier leaves a keyed hash and a time. Changes of it from before that time are dropped, so that a replay
of old events does not bring it back. What an import says was said when its list was taken, however far its T is ahead.

A deleted audience leaves its number behind, which is never given out again; its id, should it ever be heard of again,
gets a new number whose floor is the time of the deletion. So changes of a deleted number can only be ones that were on
their way when it was deleted, and are dropped.

Dropping happens when a journal record is made, after everything that the floor rests on is visible. So what is in the
journal is merged without further questions, by shards, folds and recovery alike.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import inf
from typing import Final
from zlib import crc32

from segmentd.domain.membership import V_BITS, ts_ms_of, v_of_word
from segmentd.domain.shard import Word

SALT_BYTES: Final = 16
HASH_BYTES: Final = 16
_CRC_BYTES: Final = 4
MARK_BYTES: Final = _CRC_BYTES + HASH_BYTES


class Gate:
    """Plain value; whoever owns it makes sure that one task at a time uses it."""

    def __init__(self, salt: bytes) -> None:
        """salt: SALT_BYTES random bytes that belong to the store; with them hashes cannot be made in advance."""
        self._salt = salt
        self.floors: dict[int, int] = {}
        """audience number → the `v` of "qualified at T" of its latest import."""
        self.deleted: set[int] = set()
        """Numbers of audiences that were deleted since the start; nobody has an older one in hand."""
        self._forgotten: dict[bytes, int] = {}
        # Hashing each key would double the cost of an event; a CRC tells at once that nearly all are not meant.
        self._crcs: set[int] = set()

    def raise_floor(self, audience: int, v: int) -> None:
        """Floors only rise: of two imports the one with the later T wins, whatever the order."""
        if v > self.floors.get(audience, -1):
            self.floors[audience] = v

    def mark(self, key: bytes) -> bytes:
        """What stands for a forgotten key on disk: CRC-32 (4 bytes) and keyed hash (16 bytes)."""
        digest = blake2b(key, key=self._salt, digest_size=HASH_BYTES).digest()
        return crc32(key).to_bytes(_CRC_BYTES, "big") + digest

    def forget(self, mark: bytes, forgotten_ms: int) -> None:
        """Let nothing from before `forgotten_ms` bring the identifier behind `mark` back."""
        self._forgotten[mark] = max(forgotten_ms, self._forgotten.get(mark, 0))
        self._crcs.add(int.from_bytes(mark[:_CRC_BYTES], "big"))

    def load(self, floors: Iterable[tuple[int, int]], forgotten: Iterable[tuple[bytes, int]]) -> None:
        """Take over what is stored."""
        for audience, v in floors:
            self.raise_floor(audience, v)
        for mark, forgotten_ms in forgotten:
            self.forget(mark, forgotten_ms)

    def admit(self, changes: Sequence[Word], taken_ms: float = inf) -> Sequence[Word]:
        """The changes that still count, in order; `changes` itself if all do.

        taken_ms: when the list was taken that they come from. Whoever is forgotten later is not spoken of by it any
        more, not even if its T is ahead of the clock.
        """
        admitted = changes
        if self.floors:
            floor_of = self.floors.get
            admitted = [
                change
                for change in admitted
                if change[1] & 1 or v_of_word(change[1]) >= floor_of(change[1] >> V_BITS, 0)
            ]
        if self.deleted:
            admitted = [change for change in admitted if change[1] >> V_BITS not in self.deleted]
        if self._crcs:
            admitted = [
                change for change in admitted if crc32(change[0]) not in self._crcs or self._is_new(*change, taken_ms)
            ]
        return admitted

    def _is_new(self, key: bytes, word: int, taken_ms: float) -> bool:
        return min(ts_ms_of(v_of_word(word)), taken_ms) > self._forgotten.get(self.mark(key), -1)
