"""A follower's store: reads what the owner of the data folder writes, from another process.

Owns the overlay over the index, the audiences' numbers and the segments, all as of one journal record. Never writes,
never holds the folder's lock, never holds an LMDB snapshot over a wait.

Invariants:
1. Inside `reading` everything is as of one record: at least the last one that was visible when it began, never one that
   was not visible by then.
2. Snapshots are taken in this order: the visible record, the journal, the index. A record is cut from the journal only
   when the index has it, so what a journal snapshot lacks is in an index snapshot that is taken later.
3. The index stands for visible records only, because the owner has nothing folded that is not visible.
4. What the overlay holds is bounded by the unfolded part of the journal; `catch_up`, called often enough, keeps it so.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import msgspec

from segmentd.domain.membership import V_BITS, find, unpack, v_of_word
from segmentd.domain.segments import Segment, SegmentTable
from segmentd.runtime.seam import OwnerOnlyError
from segmentd.settings import LimitsSettings, StorageSettings
from segmentd.storage.errors import StorageError
from segmentd.storage.followed import FollowedFiles
from segmentd.storage.overlay import Overlay
from segmentd.storage.records import JournalRecord, decode_numbered
from segmentd.storage.visible import Visible


class FollowingStats(msgspec.Struct, frozen=True):
    """Figures for metrics and health."""

    record: int
    """What is shown is as of this journal record."""
    behind: int
    """Visible records that are not folded in yet; the next answer folds them first."""
    overlay_changes: int
    overlay_entries: int
    folded_records: int
    """Since the start, as the two below."""
    folded_changes: int
    reloads: int
    """How often audiences and segments were read anew from the index."""


class AudienceNumbers:
    """Audience ids and their numbers, without what only a writer needs."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self.number = self._numbers.get
        """The number of an audience, None if there is no such audience."""
        self.id = self._ids.get
        """The id of a number, None if its audience was deleted."""

    def __len__(self) -> int:
        return len(self._numbers)

    def bind(self, number: int, audience_id: str) -> None:
        """From now on the audience has this number."""
        self._numbers[audience_id] = number
        self._ids[number] = audience_id

    def retire(self, number: int) -> None:
        """The audience that had this number was deleted; its id may have another one by now."""
        audience_id = self._ids.pop(number, None)
        if audience_id is not None and self._numbers.get(audience_id) == number:
            del self._numbers[audience_id]


class FollowingStore:
    """Plain calls, one at a time. `open` it; then read inside `reading`; `close` it at the end.

    After a StorageError it may show less than it should: whoever owns it ends it and begins anew.
    """

    def __init__(self, path: Path, visible: Visible, *, storage: StorageSettings, limits: LimitsSettings) -> None:
        """Opens the files in the data folder `path`. Raises StorageError."""
        self._visible = visible
        self._files = FollowedFiles(
            path, journal_map_bytes=storage.journal_map_bytes, index_map_bytes=storage.index_map_bytes
        )
        self._overlay = Overlay()
        self._audiences = AudienceNumbers()
        self._table = SegmentTable(limits.segments_max)
        self.segments: Mapping[str, Segment] = self._table.present
        self._record = 0
        self._index_seq = 0
        self._folded_records = self._folded_changes = self._reloads = 0
        self._reading = _Reading(self)

    def open(self) -> None:
        """Load audiences and segments, and fold in what is visible. Blocking. Raises StorageError."""
        self._reload(self._visible.get())

    def catch_up(self) -> None:
        """Fold in what has become visible, drop what the index has taken over. Raises StorageError."""
        with self._reading:
            pass

    def reading(self) -> "_Reading":
        """A context of one state, caught up with everything visible; do not wait inside.

        Entering raises StorageError.
        """
        return self._reading

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """See MembershipReader; inside `reading` only."""
        packed = self._overlay.over(key, self._files.get(key))
        if not packed:
            return [None] * len(audiences)
        words = unpack(packed)
        number = self._audiences.number
        found: list[int | None] = []
        for audience in audiences:
            its_number = number(audience)
            found.append(None if its_number is None else find(words, its_number))
        return found

    def memberships(self, key: bytes) -> dict[str, int]:
        """See MembershipReader; inside `reading` only."""
        words = unpack(self._overlay.over(key, self._files.get(key)))
        named = ((self._audiences.id(word >> V_BITS), word) for word in words)
        return {audience_id: v_of_word(word) for audience_id, word in named if audience_id is not None}

    def size(self, audience: str) -> int:
        """Raises OwnerOnlyError: only the owner counts."""
        raise OwnerOnlyError(f"the size of {audience} is known to the owner of the store only")

    def segment_ids(self) -> list[str]:
        """Sorted ids; shared, not to be changed."""
        return self._table.segment_ids()

    def kind_numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The stored numbers of identifier names. Raises StorageError if the owner does not serve one of them."""
        with self._files.index.reading() as txn:
            known = self._files.index.known_kinds(txn)
        if unknown := [name for name in names if name not in known]:
            raise StorageError(f"{self._files.index.path}: the owner does not serve the identifier {unknown[0]}")
        return known

    def reopen(self, generation: str) -> None:
        """Go to the files of `generation`, which is the valid one, and keep nothing of older ones.

        Again is harmless. Raises StorageError.
        """
        if self._files.generation != generation:
            self._reload(self._visible.get())
        if self._files.generation != generation:
            raise StorageError(f"generation {self._files.generation} of the files is valid, not {generation}")

    def stats(self) -> FollowingStats:
        """Figures as of now."""
        return FollowingStats(
            record=self._record,
            behind=max(0, self._visible.get() - self._record),
            overlay_changes=self._overlay.changes,
            overlay_entries=self._overlay.entries,
            folded_records=self._folded_records,
            folded_changes=self._folded_changes,
            reloads=self._reloads,
        )

    def close(self) -> None:
        """Close the environments; nothing may be under way."""
        self._files.close()

    def begin(self) -> None:
        """What entering `reading` does."""
        while True:
            record = self._visible.get()
            if record > self._record:
                self._advance(record)
            folded = self._files.begin()
            if folded <= self._record:
                break
            self._files.end()
            # It has become visible since the look above. What was never visible here is another owner's.
            if self._visible.get() < folded:
                raise StorageError(f"{self._files.index.path}: stands for record {folded}, which is not visible")
        self._index_seq = folded
        self._overlay.drop(folded)

    def end(self) -> None:
        """What leaving it does."""
        self._files.end()

    def _advance(self, target: int) -> None:
        """Fold in the journal's records up to `target`."""
        self._fold(self._files.journal.records(self._record), target)
        if self._record < target:
            # They were cut while this follower was idle, or went to the journal of a newer generation.
            self._reload(target)

    def _reload(self, target: int) -> None:
        """Begin anew with the index, and fold in what it has not. Raises StorageError."""
        self._files.move()
        rows = self._files.journal.records(self._record)
        # With the first record the journal's snapshot begins, before the one of the index.
        first = next(rows, None)
        self._load()
        if first is not None:
            self._fold(chain([first], rows), target)
        if self._record < target:
            raise StorageError(f"{self._files.journal.path}: record {self._record + 1} is missing")

    def _load(self) -> None:
        """Take over audiences and segments of the index; rows never vanish from it, so nothing has to go before."""
        index = self._files.index
        with index.reading() as txn:
            folded = index.folded_seq(txn)
            if folded < self._index_seq:
                raise StorageError(f"{index.path}: stands for record {folded}; it stood for {self._index_seq} before")
            if folded < self._record:
                # The overlay has what is between; nothing was cut.
                return
            for number, row in index.audiences(txn):
                if row.deleted_ms:
                    self._audiences.retire(number)
                else:
                    self._audiences.bind(number, row.audience_id)
            for step in index.segments(txn):
                self._table.fold(step)
        self._overlay.clear()
        self._record = self._index_seq = folded
        self._reloads += 1

    def _fold(self, rows: Iterable[tuple[int, bytes]], target: int) -> None:
        """Fold in what follows the present record without a gap, at most up to `target`."""
        for seq, blob in rows:
            if seq <= self._record:
                continue
            if seq > target or seq != self._record + 1:
                return
            self._take(seq, decode_numbered(self._files.journal.path, seq, blob))
            self._record = seq

    def _take(self, seq: int, record: JournalRecord) -> None:
        """In the order in which a record means it: audiences, changes, what is forgotten, what is deleted."""
        for number, audience_id in record.audiences:
            self._audiences.bind(number, audience_id)
        self._overlay.fold(seq, record)
        for number, _, _ in record.deleted:
            self._audiences.retire(number)
        for step in record.segments:
            self._table.fold(step)
        self._folded_records += 1
        self._folded_changes += len(record.changes) + len(record.imported)


class _Reading:
    """The context that `FollowingStore.reading` gives; one object for all, entering must cost next to nothing."""

    def __init__(self, store: FollowingStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.end()
