"""A journal and an index with the state that they must stand for kept beside them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from segmentd.domain.membership import AUDIENCE_NUMBER_MAX, V_BITS, pack, unpack
from segmentd.domain.segments import SegmentRecord
from segmentd.domain.shard import Shard, Word, load
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.records import JournalRecord, encode_record
from segmentd.storage.recovery import Recovered, recover

MAP_BYTES = 64 * 1024 * 1024
V_MASK = (1 << V_BITS) - 1
Memberships = dict[bytes, dict[int, int]]
"""identifier key → audience number → v."""
AUDIENCE_IDS = {number: f"audience_{number}" for number in (0, 1, 2, 7, AUDIENCE_NUMBER_MAX)}


def open_folder(path: Path, *, journal_map_bytes: int = MAP_BYTES, lock: bool = True) -> DataFolder:
    return DataFolder(path, journal_map_bytes=journal_map_bytes, index_map_bytes=MAP_BYTES, lock=lock)


class State:
    """What a store holds, as plain values that can be compared."""

    def __init__(self) -> None:
        self.memberships: Memberships = {}
        self.audiences: dict[int, str] = {}
        self.segments: dict[str, SegmentRecord] = {}

    def take(self, record: JournalRecord) -> None:
        """Become what this state is after `record`, in the simplest way there is."""
        self.audiences.update(record.audiences)
        self.segments.update((step.segment_id, step) for step in record.segments)
        for key, word in record.changes:
            held = self.memberships.setdefault(key, {})
            held[word >> V_BITS] = max(word & V_MASK, held.get(word >> V_BITS, 0))
        for key, _ in record.forgotten:
            self.memberships.pop(key, None)

    def packed(self) -> dict[bytes, bytes]:
        """The memberships in the form in which they are stored."""
        return {
            key: pack(sorted(audience << V_BITS | v for audience, v in held.items()))
            for key, held in self.memberships.items()
        }

    def members(self) -> list[tuple[int, bytes, int]]:
        """Every qualified membership, by audience and key."""
        return sorted(
            (audience, key, v) for key, held in self.memberships.items() for audience, v in held.items() if not v & 1
        )

    def sizes(self) -> dict[int, int]:
        """Members of every audience that was ever heard of."""
        counted = dict.fromkeys(self.audiences, 0)
        for audience, _, _ in self.members():
            counted[audience] += 1
        return counted


class Store:
    """The store in a folder. `state` is what it was told, `folded` what the index must hold."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.journal = folder.open_journal()
        self.index = folder.open_index()
        self.state = State()
        self.records: list[JournalRecord] = []

    def close(self) -> None:
        self.journal.close()
        self.index.close()

    def reopen(self) -> None:
        """Close both environments and open them again, as after a restart."""
        self.close()
        self.journal = self.folder.open_journal()
        self.index = self.folder.open_index()
        self.journal.continue_after(self.folded_seq())

    def append(
        self,
        changes: Iterable[Word] = (),
        segments: Sequence[SegmentRecord] = (),
        forgotten: Sequence[tuple[bytes, int]] = (),
        *,
        cut_to: int = 0,
    ) -> int:
        """Journal one record; audiences that are new are recorded with it."""
        listed = list(changes)
        numbers = sorted({word >> V_BITS for _, word in listed} - self.state.audiences.keys())
        audiences = [(number, AUDIENCE_IDS[number]) for number in numbers]
        record = JournalRecord(changes=listed, audiences=audiences, segments=list(segments), forgotten=list(forgotten))
        seq = self.journal.append(encode_record(record), cut_to=cut_to)
        self.state.take(record)
        self.records.append(record)
        return seq

    def fold_all(self, changes_max: int = 1_000_000) -> int:
        """Fold until nothing is left; returns in how many folds."""
        folds = 1
        while fold(self.journal, self.index, changes_max=changes_max).more:
            folds += 1
        return folds

    def folded_seq(self) -> int:
        with self.index.reading() as txn:
            return self.index.folded_seq(txn)

    def assert_index_is(self, state: State) -> None:
        """The index holds `state`, in all the places in which it is written."""
        with self.index.reading() as txn:
            assert dict(self.index.memberships(txn)) == state.packed()
            assert list(self.index.members(txn)) == state.members()
            assert {number: row.audience_id for number, row in self.index.audiences(txn)} == state.audiences
            assert {number: row.size for number, row in self.index.audiences(txn)} == state.sizes()
            assert {step.segment_id: step for step in self.index.segments(txn)} == state.segments

    def assert_index_is_state_at(self, seq: int) -> None:
        """The index holds what the first `seq` records made."""
        state = State()
        for record in self.records[:seq]:
            state.take(record)
        self.assert_index_is(state)

    def assert_recovery_gives_state(self) -> Recovered:
        """What a restart would have in memory is what was told."""
        sizes: defaultdict[int, int] = defaultdict(int)
        shard = Shard(sizes)
        begun: list[Recovered] = []

        def begin_fold(recovered: Recovered) -> None:
            begun.append(recovered)
            sizes.update(recovered.sizes)

        recovered = recover(
            self.journal,
            self.index,
            load=partial(load, [shard]),
            begin_fold=begin_fold,
            fold=shard.merge,
            forget=lambda key, _: shard.forget(key),
            progress=lambda _: None,
        )
        assert begun == [recovered]
        assert dict(shard.items()) == self.state.packed()
        assert recovered.audiences == self.state.audiences
        assert recovered.segments == self.state.segments
        assert {number: sizes[number] for number in self.state.audiences} == self.state.sizes()
        assert shard.memberships == sum(len(unpack(packed)) for packed in self.state.packed().values())
        assert self.journal.last_seq == len(self.records)
        return recovered
