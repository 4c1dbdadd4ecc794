"""Segment definitions, their revisions, and the table of them.

Owns: what a definition may be, and how a revision moves. A revision rises only when something changed, and never goes
back: a deleted segment leaves its last revision behind, and creating it again continues the count.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from segmentd.domain.encoding import require_utf8
from segmentd.domain.events_examined import EventRules
from segmentd.domain.refusals import (
    InvalidSegment,
    LimitReached,
    MalformedBody,
    PassthroughDisabled,
    RevisionMismatch,
    SegmentNotFound,
)

_SEGMENT_ID: Final = re.compile("[a-z0-9_]+")


class SegmentDefinition(msgspec.Struct, frozen=True):
    """What a client writes."""

    external_audience_id: str
    description: str = ""
    metadata: dict[str, str] = {}


class Segment(msgspec.Struct, frozen=True):
    """A definition under its id, as stored and shown."""

    segment_id: str
    revision: int
    definition: SegmentDefinition
    updated_ms: int
    """When this revision was made, milliseconds since the epoch."""


class SegmentRecord(msgspec.Struct, frozen=True, array_like=True):
    """One step of the table: what is journalled and stored."""

    segment_id: str
    revision: int
    definition: SegmentDefinition | None
    """None: deleted; `revision` is the last one it had."""
    updated_ms: int


class SegmentRules:
    """What definitions are measured against."""

    def __init__(
        self,
        events: EventRules,
        *,
        segment_id_chars_max: int = 128,
        description_chars_max: int = 4096,
        metadata_entries_max: int = 64,
        metadata_key_chars_max: int = 128,
        metadata_value_chars_max: int = 1024,
    ) -> None:
        self.events = events
        self.segment_id_chars_max = segment_id_chars_max
        self.description_chars_max = description_chars_max
        self.metadata_entries_max = metadata_entries_max
        self.metadata_key_chars_max = metadata_key_chars_max
        self.metadata_value_chars_max = metadata_value_chars_max


def normalise_segment_id(text: str, chars_max: int) -> str:
    """The id in lower case. Raises InvalidSegment."""
    # Not str.lower(): only ASCII letters are letters here (U+212A would become `k`).
    lowered = text.lower() if text.isascii() else text
    if len(text) > chars_max:
        raise InvalidSegment("segment_id", f"The segment id is {len(text)} characters long; at most {chars_max} fit.")
    if not _SEGMENT_ID.fullmatch(lowered):
        raise InvalidSegment("segment_id", "A segment id is made of letters, digits and underscores only.")
    return lowered


def parse_definition(body: bytes, rules: SegmentRules) -> SegmentDefinition:
    """Read the body of a segment write.

    Raises MalformedBody (no JSON object), InvalidSegment (with the field), PassthroughDisabled.
    """
    require_utf8(body)
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise MalformedBody(f"The body is no valid JSON: {reason}.") from None
    except RecursionError:
        raise MalformedBody("The body is no JSON that is read here: it is nested too deeply.") from None
    if not isinstance(decoded, dict):
        raise MalformedBody("The body must be a JSON object.")
    # `revision` is allowed because a client may send back what it was given; it is If-Match that guards a write.
    _only(decoded, ("revision", "description", "metadata", "definition"), "")
    description = _description(decoded, rules)
    metadata = _metadata(decoded, rules)
    audience_id = _external_audience_id(decoded, rules.events)
    if not rules.events.passthrough_enabled:
        raise PassthroughDisabled
    return SegmentDefinition(external_audience_id=audience_id, description=description, metadata=metadata)


def _only(found: dict[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in found:
        if name not in known:
            shown = name if len(name) <= 64 else f"{name[:61]}..."
            raise InvalidSegment(path + shown, f"Unknown field; known are: {', '.join(known)}.")


def _text(value: object, field: str, chars_max: int) -> str:
    if not isinstance(value, str):
        raise InvalidSegment(field, "Must be a string.")
    if len(value) > chars_max:
        raise InvalidSegment(field, f"Is {len(value)} characters long; at most {chars_max} are allowed.")
    if "\x00" in value:
        raise InvalidSegment(field, "Must not have NUL characters.")
    return value


def _description(decoded: dict[str, Any], rules: SegmentRules) -> str:
    value = decoded.get("description")
    return "" if value is None else _text(value, "description", rules.description_chars_max)


def _metadata(decoded: dict[str, Any], rules: SegmentRules) -> dict[str, str]:
    value = decoded.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidSegment("metadata", "Must be an object of strings.")
    if len(value) > rules.metadata_entries_max:
        raise InvalidSegment("metadata", f"Has {len(value)} entries; at most {rules.metadata_entries_max} are allowed.")
    for name, entry in value.items():
        _text(name, "metadata", rules.metadata_key_chars_max)
        _text(entry, f"metadata.{name}", rules.metadata_value_chars_max)
    return value


def _external_audience_id(decoded: dict[str, Any], rules: EventRules) -> str:
    definition = decoded.get("definition")
    if not isinstance(definition, dict):
        raise InvalidSegment("definition", 'Must be an object: {"external": {"external_audience_id": "..."}}.')
    external = definition.get("external")
    if external is None and definition:
        shown = ", ".join(sorted(definition))[:64]
        raise InvalidSegment("definition", f"Only `external` definitions are served here; this one has: {shown}.")
    _only(definition, ("external",), "definition.")
    if not isinstance(external, dict):
        raise InvalidSegment("definition.external", "Must be an object with `external_audience_id`.")
    _only(external, ("external_audience_id",), "definition.external.")
    audience_id = external.get("external_audience_id")
    field = "definition.external.external_audience_id"
    if not isinstance(audience_id, str):
        raise InvalidSegment(field, "Must be a string.")
    if problem := rules.audience_id_problem(audience_id):
        raise InvalidSegment(field, f"The audience id {problem}.")
    return audience_id


def segment_of(record: SegmentRecord, definition: SegmentDefinition) -> Segment:
    """The segment as it is after `record`, whose definition is `definition`."""
    return Segment(
        segment_id=record.segment_id,
        revision=record.revision,
        definition=definition,
        updated_ms=record.updated_ms,
    )


class SegmentTable:
    """All segments. `plan_*` say what a write would do and raise if it may not; `fold` does it.

    Between the two lies the journal: what is planned is written first and folded after.
    """

    def __init__(self, segments_max: int) -> None:
        self._segments_max = segments_max
        self._present: dict[str, Segment] = {}
        self._last_revisions: dict[str, int] = {}
        self.present: Mapping[str, Segment] = MappingProxyType(self._present)
        self._sorted: list[str] | None = None

    def segment_ids(self) -> list[str]:
        """Ids of the present segments, sorted. The list is shared and must not be changed."""
        if self._sorted is None:
            self._sorted = sorted(self._present)
        return self._sorted

    def plan_put(
        self, segment_id: str, definition: SegmentDefinition, if_match: int | None, now_ms: int
    ) -> SegmentRecord | None:
        """The step that makes `segment_id` be `definition`; None if it is that already.

        if_match: the revision that must be the present one, or None for any.
        Raises RevisionMismatch, LimitReached.
        """
        present = self._present.get(segment_id)
        self._check_revision(present, if_match)
        if present is not None and present.definition == definition:
            return None
        if present is None and len(self._present) >= self._segments_max:
            raise LimitReached(
                "segment_id",
                f"There are {len(self._present)} segments; at most {self._segments_max} are allowed"
                " ([limits] segments_max).",
                "segments_max",
                self._segments_max,
            )
        return SegmentRecord(segment_id, self._last_revisions.get(segment_id, 0) + 1, definition, now_ms)

    def plan_delete(self, segment_id: str, if_match: int | None, now_ms: int) -> SegmentRecord:
        """The step that deletes `segment_id`. Raises SegmentNotFound, RevisionMismatch."""
        present = self._present.get(segment_id)
        if present is None:
            raise SegmentNotFound(segment_id)
        self._check_revision(present, if_match)
        return SegmentRecord(segment_id, present.revision, None, now_ms)

    def fold(self, record: SegmentRecord) -> None:
        """Take a step. Folding one step twice is harmless."""
        self._last_revisions[record.segment_id] = record.revision
        self._sorted = None
        if record.definition is None:
            self._present.pop(record.segment_id, None)
        else:
            self._present[record.segment_id] = segment_of(record, record.definition)

    @staticmethod
    def _check_revision(present: Segment | None, if_match: int | None) -> None:
        actual = None if present is None else present.revision
        if if_match is not None and if_match != actual:
            raise RevisionMismatch(if_match, actual)
