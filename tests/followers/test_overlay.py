"""The overlay alone: whatever the tables' sizes and the folds, it gives the words as of the last record."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.membership import V_BITS, merge_packed, pack, unpack, word_of
from segmentd.domain.shard import Word
from segmentd.storage import overlay as module
from segmentd.storage.overlay import Overlay
from segmentd.storage.records import JournalRecord
from tests.domain.strategies import KEYS, keyed_words

records = st.builds(
    JournalRecord,
    changes=st.lists(keyed_words, max_size=4),
    imported=st.lists(keyed_words, max_size=2),
    forgotten=st.lists(st.tuples(st.sampled_from(KEYS), st.just(1)), max_size=1),
)
Rows = dict[bytes, bytes]


def after(rows: Rows, record: JournalRecord) -> Rows:
    """What an index has after one more record, in the simplest way there is."""
    found = dict(rows)
    for key, word in [*record.changes, *record.imported]:
        latest = {held >> V_BITS: held for held in unpack(found.get(key, b""))}
        latest[word >> V_BITS] = max(word, latest.get(word >> V_BITS, 0))
        found[key] = pack(sorted(latest.values()))
    for key, _ in record.forgotten:
        found.pop(key, None)
    return found


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLE_CHANGES", 3)


@given(st.lists(st.tuples(records, st.booleans()), max_size=12), st.data())
def test_over_an_index_of_any_age_it_gives_the_words_as_of_the_last_record(
    told: list[tuple[JournalRecord, bool]], data: Any
) -> None:
    overlay = Overlay()
    states: list[Rows] = [{}]
    folded = 0
    for seq, (record, drops) in enumerate(told, 1):
        states.append(after(states[-1], record))
        overlay.fold(seq, record)
        if drops:
            folded = data.draw(st.integers(folded, seq))
            overlay.drop(folded)
        shown = {key: overlay.over(key, states[folded].get(key)) for key in KEYS}
        assert {key: packed for key, packed in shown.items() if packed} == states[-1]


def test_what_the_index_has_taken_over_is_dropped_but_for_one_table() -> None:
    overlay = Overlay()
    changes: list[Word] = [(KEYS[0], word_of(1, 2))]
    for seq in range(1, 11):
        overlay.fold(seq, JournalRecord(changes=changes))
    assert (overlay.changes, overlay.entries) == (10, 4)
    overlay.drop(7)
    assert overlay.changes == 4
    overlay.drop(10)
    overlay.drop(10)
    overlay.drop(10)
    overlay.drop(10)
    assert (overlay.changes, overlay.entries) == (0, 0)


def test_what_is_dropped_is_freed_in_pieces_but_faster_than_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLE_CHANGES", 1_000)
    monkeypatch.setattr(module, "FREED_MIN", 10)
    overlay = Overlay()
    held = []
    for seq in range(1, 101):
        changes: list[Word] = [(b"%d" % (seq * 100 + number), word_of(1, 2)) for number in range(100)]
        overlay.fold(seq, JournalRecord(changes=changes))
        before = overlay.entries
        overlay.drop(seq // 40 * 40)
        assert before - overlay.entries <= 10 + 2 * 100
        held.append(overlay.entries - overlay.changes)
    assert max(held) > 1_000, "nothing was freed later"
    assert held[-1] == 0


def test_records_without_changes_take_no_room() -> None:
    overlay = Overlay()
    overlay.fold(1, JournalRecord(segments=[]))
    assert (overlay.changes, overlay.entries) == (0, 0)


def test_one_identifier_that_changes_all_the_time_takes_the_room_of_one() -> None:
    overlay = Overlay()
    for seq in range(1, 3):
        overlay.fold(seq, JournalRecord(changes=[(KEYS[0], word_of(1, v)) for v in range(100)]))
    assert overlay.entries == 2
    assert overlay.over(KEYS[0], None) == merge_packed(pack([word_of(1, 99)]), pack([word_of(1, 0)]))
