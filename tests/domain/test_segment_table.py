"""The segment table against a model: revisions rise only when something changed, and never go back."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from segmentd.domain.refusals import LimitReached, RevisionMismatch, SegmentNotFound
from segmentd.domain.segments import SegmentDefinition, SegmentRecord, SegmentTable

SEGMENTS_MAX = 2
ids = st.sampled_from(["a", "b", "c"])
definitions = st.builds(
    SegmentDefinition,
    st.sampled_from(["x", "y"]),
    st.sampled_from(["", "d"]),
    st.sampled_from([{}, {"k": "1"}, {"k": "2"}]),
)
matches = st.none() | st.integers(0, 6)


class SegmentTableMachine(RuleBasedStateMachine):
    """Writes and deletions with and without If-Match, each folded as it would be after the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SegmentTable(SEGMENTS_MAX)
        self.model: dict[str, tuple[int, SegmentDefinition]] = {}
        self.last: dict[str, int] = {}
        self.journal: list[SegmentRecord] = []
        self.now_ms = 0

    def fold(self, record: SegmentRecord) -> None:
        """Take a step, twice, as after a crash between fold and answer."""
        self.journal.append(record)
        self.table.fold(record)
        self.table.fold(record)

    @rule(segment_id=ids, definition=definitions, if_match=matches)
    def put(self, segment_id: str, definition: SegmentDefinition, if_match: int | None) -> None:
        self.now_ms += 1
        present = self.model.get(segment_id)
        revision = present[0] if present else None
        if if_match is not None and if_match != revision:
            with pytest.raises(RevisionMismatch) as mismatch:
                self.table.plan_put(segment_id, definition, if_match, self.now_ms)
            assert (mismatch.value.expected, mismatch.value.actual) == (if_match, revision)
        elif present is None and len(self.model) >= SEGMENTS_MAX:
            with pytest.raises(LimitReached, match=r"2 segments; at most 2 .*segments_max"):
                self.table.plan_put(segment_id, definition, if_match, self.now_ms)
        elif present is not None and present[1] == definition:
            assert self.table.plan_put(segment_id, definition, if_match, self.now_ms) is None
        else:
            record = self.table.plan_put(segment_id, definition, if_match, self.now_ms)
            expected = self.last.get(segment_id, 0) + 1
            assert record == SegmentRecord(segment_id, expected, definition, self.now_ms)
            self.fold(record)
            self.model[segment_id] = (expected, definition)
            self.last[segment_id] = expected

    @rule(segment_id=ids, if_match=matches)
    def delete(self, segment_id: str, if_match: int | None) -> None:
        self.now_ms += 1
        present = self.model.get(segment_id)
        if present is None:
            with pytest.raises(SegmentNotFound) as missing:
                self.table.plan_delete(segment_id, if_match, self.now_ms)
            assert missing.value.segment_id == segment_id
        elif if_match not in (None, present[0]):
            with pytest.raises(RevisionMismatch):
                self.table.plan_delete(segment_id, if_match, self.now_ms)
        else:
            self.fold(self.table.plan_delete(segment_id, if_match, self.now_ms))
            del self.model[segment_id]

    @rule()
    def recover_from_all_steps(self) -> None:
        """A table that folds the whole journal is the table that wrote it."""
        self.table = SegmentTable(SEGMENTS_MAX)
        for record in self.journal:
            self.table.fold(record)

    @rule()
    def recover_from_last_steps(self) -> None:
        """So is one that folds only the last step of each segment, in any order: that is what the index keeps."""
        self.table = SegmentTable(SEGMENTS_MAX)
        for record in {record.segment_id: record for record in self.journal}.values():
            self.table.fold(record)

    @invariant()
    def agrees(self) -> None:
        assert {sid: (seg.revision, seg.definition) for sid, seg in self.table.present.items()} == self.model
        assert self.table.segment_ids() == sorted(self.model)


SegmentTableMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestSegmentTable: Any = SegmentTableMachine.TestCase


def test_creating_again_after_deleting_continues_the_count() -> None:
    table = SegmentTable(10)
    definition = SegmentDefinition("a")
    for revision in (1, 2, 3):
        record = table.plan_put("s", definition, None, 0)
        assert record is not None
        assert record.revision == revision
        table.fold(record)
        table.fold(table.plan_delete("s", revision, 0))
    assert table.segment_ids() == []


def test_planning_changes_nothing() -> None:
    table = SegmentTable(10)
    table.plan_put("s", SegmentDefinition("a"), None, 0)
    assert dict(table.present) == {}
    assert table.segment_ids() == []


def test_the_published_table_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        SegmentTable(10).present["s"] = None  # type: ignore[index]
