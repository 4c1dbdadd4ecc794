"""Files that say who the members of an audience are: their forms, and what is wrong with a file or with one row.

A file is a whole list: *as of T, exactly these*. Pure rules; reading bytes, inflating and sorting is storage's.

Two kinds of wrong. `UnreadableFile`: the file as a whole cannot be what it should be (no header, another audience, a
`disqualify`), so nothing of it may count. `ValueError` from a row reader: this row is wrong, the others may be right.
Reasons never repeat a value of the file, because they are kept with the job and shown to people.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from segmentd.domain.events_examined import PASSTHROUGH, ts_ms_from
from segmentd.domain.identifiers import IdentifierKind, IdentifierSchema
from segmentd.domain.refusals import MalformedBody

QUALIFY: Final = "qualify"
DISQUALIFY: Final = "disqualify"
EVENT_COLUMNS: Final = ("type", "action", "audience_id", "ts")
"""The columns of ODP's import file, besides the identifier."""
_TS: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,3}0*)?")
_FILE_NAME: Final = re.compile(r"(.+)\.(?:csv|ndjson|jsonl)(?:\.gz)?")
_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_NAMES_SHOWN_MAX: Final = 10
_NAME_CHARS_MAX: Final = 64

Row = tuple[bytes, int | None]
"""(normalised value in UTF-8, `ts` in ms or None)."""


class UnreadableFile(MalformedBody):
    """The file as a whole cannot be used; `line` (from 1) is where that was seen, None if everywhere."""

    code = "UNREADABLE_FILE"

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class FileRules(msgspec.Struct, frozen=True):
    """What a file is measured against. ts_ms_max: a later `ts` is in the future. identifier: the name asked for."""

    schema: IdentifierSchema
    audience_id: str
    ts_ms_max: int
    identifier: str | None = None


def audience_id_of(file_name: str) -> str | None:
    """The audience that a file is named after: `<audience id>.csv`, `.ndjson` or `.jsonl`, each also with `.gz`."""
    match = _FILE_NAME.fullmatch(file_name)
    return match and match[1]


def parse_ts(text: str) -> int:
    """Milliseconds of `ts` in seconds, as text. Raises ValueError."""
    if text.isascii() and text.isdecimal() and len(text) <= 15:
        return int(text) * 1000
    if not _TS.fullmatch(text):
        raise ValueError("`ts` must be a number of seconds since 1970 with at most three decimals")
    whole, _, decimals = text.partition(".")
    return int(whole) * 1000 + int(decimals[:3].ljust(3, "0"))


def is_past(as_of_ms: int, ts_ms_max: int) -> bool:
    """Whether a time may be used: not negative, not further ahead of the clock than events may be."""
    return 0 <= as_of_ms <= ts_ms_max


def share_too_large(part: int, whole: int, share_max: float) -> bool:
    """Whether `part` is more than `share_max` (0..1) of `whole`."""
    return part > share_max * whole


def value_bytes(rules: FileRules, kind: IdentifierKind, value: str) -> bytes:
    """The normalised value. Raises ValueError."""
    try:
        return rules.schema.key(kind, value)[1:]
    except ValueError as error:
        raise ValueError(f"`{kind.name}` {error}") from None


def chosen_kind(names: Sequence[str], rules: FileRules, line: int) -> IdentifierKind:
    """The one high-confidence identifier among `names`. Raises UnreadableFile."""
    kinds = rules.schema.kinds
    if rules.identifier is not None:
        if rules.identifier not in names:
            raise UnreadableFile(f"The file has no column `{rules.identifier}`; found {len(names)} columns.", line)
        highs = [rules.identifier] if kinds[rules.identifier].is_high else []
    else:
        highs = [name for name in names if name in kinds and kinds[name].is_high]
    if len(highs) == 1:
        return kinds[highs[0]]
    if highs:
        raise UnreadableFile(
            f"The file has several identifiers, {shown(highs)}; say which one counts (`identifier`, --identifier).",
            line,
        )
    wanted = shown([name for name, kind in kinds.items() if kind.is_high])
    if lows := [name for name in names if name in kinds]:
        raise UnreadableFile(f"{shown(lows)} is a low-confidence identifier; one of {wanted} is needed.", line)
    found = f"{len(names)} column{'s' * (len(names) != 1)}"
    hint = f"; {_hint(names, kinds)}" if line == 1 else ""
    raise UnreadableFile(f"No column is an identifier: found {found}, needed one of {wanted}{hint}", line)


def _hint(names: Sequence[str], kinds: Collection[str]) -> str:
    """What may be wrong with a header that has no identifier."""
    for at, name in enumerate(names, start=1):
        if name.lower() in kinds:
            return f"column {at} must be written `{name.lower()}`."
    for separator, word in _SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            return f"columns must be separated by commas, here it seems to be {word}."
    return "is the header missing?"


def shown(names: Sequence[str]) -> str:
    """Names from outside as a message can show them."""
    cut = [f"`{name[:_NAME_CHARS_MAX]}`" for name in names[:_NAMES_SHOWN_MAX]]
    return ", ".join(cut) + (", ..." if len(names) > _NAMES_SHOWN_MAX else "")


class CsvForm:
    """The columns of a CSV file, from its header; `row` reads one line's fields."""

    def __init__(self, header: Sequence[str], rules: FileRules) -> None:
        """Raises UnreadableFile."""
        names = [name.strip() for name in header]
        if len(set(names)) != len(names):
            raise UnreadableFile("The header names a column twice.", 1)
        self._rules = rules
        self.kind = chosen_kind(names, rules, 1)
        unknown = [name for name in names if name not in rules.schema.kinds and name not in EVENT_COLUMNS]
        if unknown and not set(EVENT_COLUMNS) <= set(names):
            forms = f"either `{self.kind.name}` alone or {shown(EVENT_COLUMNS)} and `{self.kind.name}`"
            # Their places: a first row that is no header has values there.
            places = ", ".join(str(names.index(name) + 1) for name in unknown[:_NAMES_SHOWN_MAX])
            raise UnreadableFile(f"The header has unknown columns, at {places}; expected {forms}.", 1)
        self._columns = len(names)
        self._value_at = names.index(self.kind.name)
        self._type_at, self._action_at, self._audience_at, self._ts_at = (
            names.index(name) if name in names else None for name in EVENT_COLUMNS
        )

    def reader(self) -> Callable[[list[str], int], Row]:
        """A function of (fields, line) that gives the row. Raises ValueError (this row), UnreadableFile (the file)."""
        rules, kind, columns, value_at, ts_at = self._rules, self.kind, self._columns, self._value_at, self._ts_at
        value_max, lower, check = rules.schema.value_bytes_max, kind.lower_case, self._check
        has_event_columns = any(at is not None for at in (self._type_at, self._action_at, self._audience_at))
        ts_text, ts_ms = "", None

        def read(fields: list[str], line: int) -> Row:
            nonlocal ts_text, ts_ms
            if len(fields) != columns:
                raise ValueError(f"has {len(fields)} columns, the header has {columns}")
            if has_event_columns:
                check(fields, line)
            if ts_at is not None and fields[ts_at] != ts_text:
                # Most files have one `ts` over and over.
                ts_text, ts_ms = "", None
                ts_ms = row_ts(fields[ts_at], rules)
                ts_text = fields[ts_at]
            value = fields[value_at]
            # Nearly every value takes this road; the other one says what is wrong.
            if value.isascii() and value.isprintable() and 0 < len(value) <= value_max:
                return (value.lower() if lower else value).encode(), ts_ms
            return value_bytes(rules, kind, value), ts_ms

        return read

    def _check(self, fields: list[str], line: int) -> None:
        if (at := self._action_at) is not None and fields[at] != QUALIFY:
            check_action(fields[at], line)
        if (at := self._audience_at) is not None and fields[at] != self._rules.audience_id:
            check_audience(fields[at], self._rules, line)
        if (at := self._type_at) is not None and fields[at] != PASSTHROUGH:
            raise ValueError(f"`type` must be `{PASSTHROUGH}`")


def row_ts(text: str, rules: FileRules) -> int | None:
    """`ts` of a row; None if empty. Raises ValueError."""
    if not text:
        return None
    ts_ms = parse_ts(text)
    if ts_ms > rules.ts_ms_max:
        raise ValueError("`ts` is in the future; it must be in seconds since 1970")
    return ts_ms


def check_action(action: object, line: int) -> None:
    """Raises UnreadableFile for `disqualify`, ValueError for what is no action."""
    if action == DISQUALIFY:
        raise UnreadableFile(
            "The file disqualifies; a whole list says only who the members are. Send decisions as events.", line
        )
    if action != QUALIFY:
        raise ValueError(f"`action` must be `{QUALIFY}`")


def check_audience(audience_id: object, rules: FileRules, line: int) -> None:
    """Raises ValueError for a missing audience, UnreadableFile for another one."""
    if not isinstance(audience_id, str) or not audience_id:
        raise ValueError("`audience_id` is missing")
    if audience_id != rules.audience_id:
        raise UnreadableFile(
            f"The file has another audience inside; it is imported to {shown([rules.audience_id])}.",
            line,
        )


class JsonForm:
    """Objects, one a line: `{"<identifier>": "...", "ts"?: n}`, or events as for POST /v3/events."""

    def __init__(self, rules: FileRules) -> None:
        self._rules = rules
        self.kind: IdentifierKind | None = None
        """That of the first object; all others must have the same."""
        self._highs = {name for name, kind in rules.schema.kinds.items() if kind.is_high}

    def row(self, found: Any, line: int) -> Row:
        """One object. Raises ValueError (this row), UnreadableFile (the file)."""
        if not isinstance(found, dict):
            raise ValueError("must be an object")  # noqa: TRY004  # the row is wrong, not a type
        identifiers, data = self._event(found, line) if "identifiers" in found else self._plain(found, line)
        kind = self._kind(identifiers, line)
        value = identifiers.get(kind.name)
        if not isinstance(value, str):
            raise ValueError(f"`{kind.name}` must be a string")  # noqa: TRY004
        return value_bytes(self._rules, kind, value), self._ts_ms(data.get("ts"))

    def _event(self, found: dict[str, Any], line: int) -> tuple[dict[str, Any], dict[str, Any]]:
        check_action(found.get("action"), line)
        identifiers, data = found["identifiers"], found.get("data")
        if found.get("type") != PASSTHROUGH or not isinstance(identifiers, dict) or not isinstance(data, dict):
            raise ValueError(f"must be an event: `type` `{PASSTHROUGH}`, objects `identifiers` and `data`")
        check_audience(data.get("audience_id"), self._rules, line)
        return identifiers, data

    def _plain(self, found: dict[str, Any], line: int) -> tuple[dict[str, Any], dict[str, Any]]:
        if "action" in found:
            check_action(found["action"], line)
        if "audience_id" in found:
            check_audience(found["audience_id"], self._rules, line)
        return found, found

    def _kind(self, identifiers: dict[str, Any], line: int) -> IdentifierKind:
        others = self._highs & identifiers.keys()
        if self.kind is None or (len(others) > 1 and self._rules.identifier is None):
            self.kind = chosen_kind(list(identifiers), self._rules, line)
        elif self.kind.name not in others:
            if others and self._rules.identifier is None:
                raise UnreadableFile(f"The file began with `{self.kind.name}` and has another identifier here.", line)
            raise ValueError(f"`{self.kind.name}` is missing")
        return self.kind

    def _ts_ms(self, ts: Any) -> int | None:
        if ts is None:
            return None
        if isinstance(ts, bool) or not isinstance(ts, int | float):
            raise ValueError("`ts` must be a number of seconds")  # noqa: TRY004
        ts_ms = ts_ms_from(ts)
        if ts_ms is None or ts_ms < 0:
            raise ValueError("`ts` must be a number of seconds since 1970 with at most three decimals")
        if ts_ms > self._rules.ts_ms_max:
            raise ValueError("`ts` is in the future; it must be in seconds since 1970")
        return ts_ms
