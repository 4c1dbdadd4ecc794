"""Folding and recovery against a model: whatever was folded how far, the index is exact and nothing is lost."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segmentd.domain.membership import word_of
from segmentd.domain.segments import SegmentDefinition, SegmentRecord
from segmentd.domain.shard import Word
from segmentd.storage import checkpoint
from segmentd.storage.check import check
from segmentd.storage.checkpoint import Folded, fold
from segmentd.storage.errors import StorageError
from tests.domain.strategies import KEYS, keyed_words
from tests.storage.stored import Store, open_folder

steps = st.builds(
    SegmentRecord,
    st.sampled_from(["a", "b"]),
    st.integers(1, 9),
    st.none() | st.builds(SegmentDefinition, st.just("x"), st.text(max_size=3), st.just({"k": "v"})),
    st.integers(0, 2**42),
)


class PowerCutError(Exception):
    """What a fold meets in the middle."""


class FoldMachine(RuleBasedStateMachine):
    """Appends, folds, cuts and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._home = tempfile.TemporaryDirectory()
        self._folder = open_folder(Path(self._home.name) / "data")
        self.store = Store(self._folder)

    def teardown(self) -> None:
        self.store.fold_all()
        self.store.assert_index_is(self.store.state)
        self.store.close()
        report = check(self._folder)
        assert report.differences == []
        assert report.memberships == sum(map(len, self.store.state.memberships.values()))
        self._folder.close()
        self._home.cleanup()

    @rule(changes=st.lists(keyed_words, max_size=8))
    def append(self, changes: list[Word]) -> None:
        self.store.append(changes)

    @rule(segments=st.lists(steps, min_size=1, max_size=2))
    def append_segments(self, segments: list[SegmentRecord]) -> None:
        self.store.append(segments=segments)

    @rule(key=st.sampled_from(KEYS), changes=st.lists(keyed_words, max_size=3))
    def forget(self, key: bytes, changes: list[Word]) -> None:
        self.store.append(changes, forgotten=[(key, 5)])

    @rule(changes_max=st.integers(1, 10))
    def fold_some(self, changes_max: int) -> None:
        before = self.store.folded_seq()
        folded = fold(self.store.journal, self.store.index, changes_max=changes_max)
        assert folded.seq == self.store.folded_seq() >= before
        assert folded.more == (folded.seq < len(self.store.records))
        taken = self.store.records[before : folded.seq]
        assert folded.changes == sum(len(record.changes) for record in taken)
        # Bounded: without its last record a fold is below what it may take.
        assert sum(len(record.changes) for record in taken[:-1]) < changes_max

    @precondition(lambda self: self.store.folded_seq() < len(self.store.records))
    @rule()
    def a_fold_that_is_interrupted_changes_nothing(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "hit", _cut_power)
            with pytest.raises(PowerCutError):
                fold(self.store.journal, self.store.index, changes_max=5)

    @rule()
    def append_and_cut_what_is_folded(self) -> None:
        folded_seq = self.store.folded_seq()
        self.store.append(cut_to=folded_seq)
        assert next(self.store.journal.records(0))[0] == folded_seq + 1

    @rule()
    def restart(self) -> None:
        self.store.reopen()
        self.store.assert_recovery_gives_state()

    @invariant()
    def index_is_exact(self) -> None:
        self.store.assert_index_is_state_at(self.store.folded_seq())


def _cut_power(name: str, *, parent: bool = False) -> None:
    raise PowerCutError(name)


FoldMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestFold: Any = FoldMachine.TestCase


@pytest.mark.parametrize("changes_max", [1, 2, 3, 7, 1_000])
def test_the_size_of_the_folds_makes_no_difference(store: Store, changes_max: int) -> None:
    for number in range(20):
        store.append([(KEYS[number % 5], word_of(number % 3, number)), (KEYS[number % 3], word_of(7, 40 - number))])
    store.fold_all(changes_max)
    store.assert_index_is(store.state)


def test_folding_what_is_folded_already_changes_nothing(store: Store) -> None:
    store.append([(KEYS[0], word_of(1, 2)), (KEYS[1], word_of(1, 3))])
    store.fold_all()
    with store.index.writing() as txn:
        store.index.set_folded_seq(txn, 0)
    assert fold(store.journal, store.index, changes_max=10) == Folded(seq=1, changes=2, more=False)
    store.assert_index_is(store.state)


def test_an_empty_journal_gives_an_empty_fold(store: Store) -> None:
    assert fold(store.journal, store.index, changes_max=10) == Folded(seq=0, changes=0, more=False)


def test_what_another_checkpointer_folded_meanwhile_is_not_turned_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpointer of a killed server may still be at it when the next server has started its own."""
    store.append([(KEYS[0], word_of(1, 2))])
    gather = checkpoint._gather

    def overtaken(*arguments: Any) -> Any:
        gathered = gather(*arguments)
        monkeypatch.setattr(checkpoint, "_gather", gather)
        store.append([(KEYS[0], word_of(1, 5))])
        assert fold(store.journal, store.index, changes_max=10).seq == 2
        return gathered

    monkeypatch.setattr(checkpoint, "_gather", overtaken)
    assert fold(store.journal, store.index, changes_max=10) == Folded(seq=2, changes=0, more=True)
    store.assert_index_is(store.state)
    assert fold(store.journal, store.index, changes_max=10) == Folded(seq=2, changes=0, more=False)


@pytest.mark.parametrize("folded", range(6))
def test_recovery_is_exact_wherever_the_last_fold_ended(store: Store, folded: int) -> None:
    for number in range(5):
        step = SegmentRecord("s", number + 1, SegmentDefinition(f"a{number}"), number)
        store.append([(KEYS[0], word_of(number % 2, number)), (KEYS[number], word_of(2, 4))], [step])
    for _ in range(folded):
        fold(store.journal, store.index, changes_max=1)
    recovered = store.assert_recovery_gives_state()
    assert (recovered.folded_seq, recovered.journal_records) == (folded, 5 - folded)


@pytest.mark.parametrize("changes_max", [1, 1_000])
def test_the_time_of_a_forgetting_never_goes_back(store: Store, changes_max: int) -> None:
    """Clocks may be set back between two requests; what the first kept out must stay out."""
    for forgotten_ms in (9, 5):
        store.append([(KEYS[1], word_of(1, 2))], forgotten=[(KEYS[0], forgotten_ms)])
    store.fold_all(changes_max)
    with store.index.reading() as txn:
        assert [forgotten_ms for _, forgotten_ms in store.index.forgotten(txn)] == [9]


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_record_is_named_and_nothing_behind_it_folded(store: Store, missing: int) -> None:
    for number in range(4):
        store.append([(KEYS[number], word_of(1, 2))])
        if number + 1 == missing:
            with store.journal._env.begin(write=True) as txn:
                txn.delete(missing.to_bytes(8, "big"))
    with pytest.raises(StorageError, match=f"record {missing} is missing, the next one is {missing + 1}"):
        fold(store.journal, store.index, changes_max=10)
    assert store.folded_seq() == 0
