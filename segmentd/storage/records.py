"""The journal's records: a CRC-32 (u32 BE) and one msgpack map for each group commit.

LMDB does not check what it reads, so a record does: a damaged one is noticed and never folded. A record is the whole
of what one fsync made durable. Keys that are absent had nothing.

| key | holds |
|---|---|
| `a` | new audiences: `[[number, id], ...]` |
| `c` | membership changes by events: `[[identifier key, word], ...]` |
| `i` | membership changes by imports, in the same form |
| `f` | new floors: `[[audience number, v], ...]` |
| `g` | forgotten identifiers: `[[identifier key, ms], ...]`; they come after all changes of the record |
| `d` | deleted audiences: `[[audience number, floor v, ms], ...]`; they come after all changes |
| `s` | segment steps: `[[id, revision, definition, updated_ms], ...]` |

A definition is `[audience id, description, metadata]`, or nil where the segment was deleted.
"""

from pathlib import Path
from struct import Struct
from typing import Any
from zlib import crc32

import msgpack
import msgspec

from segmentd.domain.segments import SegmentDefinition, SegmentRecord
from segmentd.domain.shard import Word
from segmentd.storage.errors import StorageError

_CRC = Struct(">I")


class DamagedRecordError(StorageError):
    """A record does not have the checksum that was written with it."""


class JournalRecord(msgspec.Struct):
    """Decoded form of one record."""

    changes: list[Word] = []
    imported: list[Word] = []
    floors: list[tuple[int, int]] = []
    forgotten: list[tuple[bytes, int]] = []
    deleted: list[tuple[int, int, int]] = []
    audiences: list[tuple[int, str]] = []
    segments: list[SegmentRecord] = []


def encode_record(record: JournalRecord) -> bytes:
    """The bytes of a record."""
    fields: dict[str, Any] = {}
    if record.audiences:
        fields["a"] = record.audiences
    if record.changes:
        fields["c"] = record.changes
    if record.imported:
        fields["i"] = record.imported
    if record.floors:
        fields["f"] = record.floors
    if record.forgotten:
        fields["g"] = record.forgotten
    if record.deleted:
        fields["d"] = record.deleted
    if record.segments:
        fields["s"] = [segment_fields(segment) for segment in record.segments]
    packed: bytes = msgpack.packb(fields)
    return _CRC.pack(crc32(packed)) + packed


def decode_record(blob: bytes) -> JournalRecord:
    """Read a record. Raises DamagedRecordError."""
    # Four zero bytes would carry the right checksum of nothing.
    if len(blob) <= _CRC.size or blob[:4] != _CRC.pack(crc32(blob[4:])):
        raise DamagedRecordError("is damaged, its checksum is wrong")
    try:
        fields = msgpack.unpackb(blob[4:], use_list=False)
        return JournalRecord(
            changes=fields.get("c", ()),
            imported=fields.get("i", ()),
            floors=fields.get("f", ()),
            forgotten=fields.get("g", ()),
            deleted=fields.get("d", ()),
            audiences=fields.get("a", ()),
            segments=[segment_from_fields(segment) for segment in fields.get("s", ())],
        )
    except (ValueError, TypeError, AttributeError, LookupError, msgpack.UnpackException) as error:
        # The checksum is right, so these are the bytes that were written: by something else.
        raise DamagedRecordError("is no record of this format, though its checksum is right") from error


def decode_numbered(path: Path, seq: int, blob: bytes) -> JournalRecord:
    """Read record `seq` of the journal in `path`. Raises DamagedRecordError that names it."""
    try:
        return decode_record(blob)
    except DamagedRecordError as error:
        raise DamagedRecordError(f"{path}: record {seq}: {error}") from error


def segment_fields(record: SegmentRecord) -> tuple[Any, ...]:
    """A segment step as msgpack can hold it."""
    definition = record.definition
    held = None
    if definition is not None:
        held = (definition.external_audience_id, definition.description, definition.metadata)
    return record.segment_id, record.revision, held, record.updated_ms


def segment_from_fields(fields: tuple[Any, ...]) -> SegmentRecord:
    """The reverse of `segment_fields`."""
    segment_id, revision, held, updated_ms = fields
    definition = None
    if held is not None:
        definition = SegmentDefinition(external_audience_id=held[0], description=held[1], metadata=held[2])
    return SegmentRecord(segment_id, revision, definition, updated_ms)
