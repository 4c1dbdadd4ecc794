"""Records come back as they were written, or are refused."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.segments import SegmentDefinition, SegmentRecord
from segmentd.storage.records import DamagedRecordError, JournalRecord, decode_record, encode_record

keys = st.binary(min_size=2, max_size=40)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
v = st.integers(0, 2**44 - 1)
definitions = st.builds(SegmentDefinition, texts, texts, st.dictionaries(texts, texts, max_size=3))
steps = st.builds(SegmentRecord, texts, st.integers(1, 2**40), st.none() | definitions, st.integers(0, 2**43))
words = st.lists(st.tuples(keys, st.integers(0, 2**64 - 1)), max_size=5)
numbers = st.integers(0, 2**20 - 1)
journal_records = st.builds(
    JournalRecord,
    changes=words,
    imported=words,
    floors=st.lists(st.tuples(numbers, v), max_size=2),
    forgotten=st.lists(st.tuples(keys, v), max_size=2),
    audiences=st.lists(st.tuples(numbers, texts), max_size=3),
    segments=st.lists(steps, max_size=3),
)


def as_lists(record: JournalRecord) -> JournalRecord:
    """The same record, sequences as lists."""
    return JournalRecord(
        changes=list(record.changes),
        imported=list(record.imported),
        floors=list(record.floors),
        forgotten=list(record.forgotten),
        audiences=list(record.audiences),
        segments=list(record.segments),
    )


@given(journal_records)
def test_a_record_round_trips(record: JournalRecord) -> None:
    assert as_lists(decode_record(encode_record(record))) == record


@given(journal_records, st.data())
def test_a_record_with_any_bit_flipped_is_noticed(record: JournalRecord, data: st.DataObject) -> None:
    blob = bytearray(encode_record(record))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedRecordError):
        decode_record(bytes(blob))


@given(journal_records, st.data())
def test_a_record_cut_short_is_noticed(record: JournalRecord, data: st.DataObject) -> None:
    blob = encode_record(record)
    with pytest.raises(DamagedRecordError):
        decode_record(blob[: data.draw(st.integers(0, len(blob) - 1))])


@pytest.mark.parametrize("size", [0, 1, 4, 5, 4096])
def test_zeroes_are_no_record(size: int) -> None:
    with pytest.raises(DamagedRecordError):
        decode_record(bytes(size))


@pytest.mark.parametrize(
    "packed", [b"\x07", b"\x80\x00", b"\x81\xa1s\x91\x07", b"\x81\xa1s\x91\x94\xa1s\x01\x81\xa1a\xa1b\x01", b"\xc1"]
)
def test_what_something_else_wrote_with_a_right_checksum_is_refused(packed: bytes) -> None:
    with pytest.raises(DamagedRecordError, match="no record of this format"):
        decode_record(crc32(packed).to_bytes(4) + packed)
