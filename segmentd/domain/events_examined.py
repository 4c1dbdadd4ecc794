"""The rules for one event, spelled out: what an event must be, and a named problem for everything that it is not.

This is the authority; `segmentd.domain.events` only gets there faster.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from segmentd.domain.identifiers import IdentifierKind, IdentifierSchema
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import InvalidEvent

Change = tuple[bytes, str, int]
"""(identifier key, audience id, v)."""

PASSTHROUGH: Final = "passthrough"
ACTIONS: Final = {"qualify": 0, "disqualify": 1}
"""Action → the lowest bit of `v`."""

# What CDPs use for ids, and what can stand in a path, a file name and a CSV cell without quoting.
_AUDIENCE_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+~-]*")
# A number of milliseconds, 2001 or later: 10**12 seconds is the year 33658.
_SURELY_MILLISECONDS: Final = 10**12
# Far beyond every clock, on either side; stands for numbers that have no decimals any more, infinity among them.
_FAR_MS: Final = 10**18

_AUDIENCE_IDS_REMEMBERED_MAX: Final = 10_000

_Note = Callable[[str, str, str], None]
"""(field, reason, message) of one problem."""


class EventRules:
    """What events are measured against."""

    def __init__(
        self,
        schema: IdentifierSchema,
        *,
        future_seconds_max: int = 3600,
        events_max: int = 500,
        audience_id_chars_max: int = 128,
        invalids_listed_max: int = 100,
        passthrough_enabled: bool = True,
    ) -> None:
        self.schema = schema
        self.kinds: Mapping[str, IdentifierKind] = schema.kinds
        self.prefixes = {name: bytes([kind.number]) if kind.is_high else b"" for name, kind in schema.kinds.items()}
        """What a key begins with, by identifier name; empty for identifiers of low confidence."""
        self.key_bytes_max = schema.value_bytes_max + 1
        self.lower_cased = frozenset(name for name, kind in schema.kinds.items() if kind.lower_case)
        self.known_audience_ids: set[str] = set()
        """Some of those that `is_audience_id` has found right; only it changes them."""
        self.future_ms_max = future_seconds_max * 1000
        self.events_max = events_max
        self.audience_id_chars_max = audience_id_chars_max
        self.invalids_listed_max = invalids_listed_max
        self.passthrough_enabled = passthrough_enabled

    def is_audience_id(self, text: str) -> bool:
        """Whether `text` can name an audience."""
        if text in self.known_audience_ids:
            return True
        if len(text) > self.audience_id_chars_max or _AUDIENCE_ID.fullmatch(text) is None:
            return False
        # There are few audiences and many events; the bound is for those who send a new one each time.
        if len(self.known_audience_ids) >= _AUDIENCE_IDS_REMEMBERED_MAX:
            self.known_audience_ids.clear()
        self.known_audience_ids.add(text)
        return True

    def audience_id_problem(self, text: str) -> str | None:
        """What is wrong with `text` as an audience id, or None."""
        if not text:
            return "must not be empty"
        if len(text) > self.audience_id_chars_max:
            return f"is {len(text)} characters long; at most {self.audience_id_chars_max} are allowed"
        if not _AUDIENCE_ID.fullmatch(text):
            return "may have letters, digits and _ . : @ + ~ - only, and begins with a letter, a digit or _"
        return None


class Problems:
    """The problems of a request, the first `listed_max` kept, all counted."""

    def __init__(self, listed_max: int) -> None:
        self.listed: list[InvalidEvent] = []
        self.total = 0
        self._listed_max = listed_max

    def of(self, event: int) -> _Note:
        """A function that notes a problem of the event with this number."""

        def note(field: str, reason: str, message: str) -> None:
            self.total += 1
            if len(self.listed) < self._listed_max:
                self.listed.append(InvalidEvent(event=event, field=field, reason=reason, message=message))

        return note


def examine(event: Any, note: _Note, rules: EventRules, now_ms: int) -> Change | None:
    """The change that `event` asks for; None if it asks for none (another type) or has problems (noted)."""
    if not isinstance(event, dict):
        note("", "WRONG_TYPE", f"An event must be an object, not {_kind_of(event)}.")
        return None
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        note("type", _missing_or_wrong(event, "type"), "`type` must be a non-empty string.")
        return None
    if kind != PASSTHROUGH:
        return None
    disqualified = _action(event, note)
    key = _key(event, note, rules)
    data = event.get("data")
    if not isinstance(data, dict):
        note("data", _missing_or_wrong(event, "data"), "`data` must be an object with `audience_id`.")
        return None
    audience_id = _audience_id(data, note, rules)
    ts_ms = _ts_ms(data.get("ts"), note, rules, now_ms)
    if disqualified is None or key is None or audience_id is None or ts_ms is None:
        return None
    return key, audience_id, v_of(ts_ms, not disqualified)


def _action(event: dict[str, Any], note: _Note) -> int | None:
    action = event.get("action")
    if isinstance(action, str) and action in ACTIONS:
        return ACTIONS[action]
    reason = "UNKNOWN_ACTION" if isinstance(action, str) else _missing_or_wrong(event, "action")
    note("action", reason, "`action` must be `qualify` or `disqualify`.")
    return None


def _key(event: dict[str, Any], note: _Note, rules: EventRules) -> bytes | None:
    identifiers = event.get("identifiers")
    if not isinstance(identifiers, dict):
        reason = _missing_or_wrong(event, "identifiers")
        note("identifiers", reason, "`identifiers` must be an object of identifier names and values.")
        return None
    highs: list[str] = []
    key = None
    sound = True
    for name, value in identifiers.items():
        kind = rules.kinds.get(name)
        field = f"identifiers.{_shown(name)}"
        if kind is None:
            known = ", ".join(rules.kinds)
            note(field, "UNKNOWN_IDENTIFIER", f"This identifier is not configured; known are: {known}.")
        elif not isinstance(value, str):
            note(field, "WRONG_TYPE", f"The value must be a string, not {_kind_of(value)}.")
        elif kind.is_high:
            highs.append(name)
            key = _made_key(kind, value, note, rules, field)
            sound = sound and key is not None
            continue
        else:
            continue
        sound = False
    if sound and len(highs) != 1:
        _not_one_high(highs, note, rules)
        return None
    return key if sound else None


def _made_key(kind: IdentifierKind, value: str, note: _Note, rules: EventRules, field: str) -> bytes | None:
    try:
        return rules.schema.key(kind, value)
    except ValueError as error:
        note(field, "INVALID_VALUE", f"The value {error}.")
        return None


def _not_one_high(highs: list[str], note: _Note, rules: EventRules) -> None:
    if highs:
        note("identifiers", "SEVERAL_HIGH_CONFIDENCE", f"Give exactly one of: {', '.join(highs)}.")
        return
    known = ", ".join(name for name, kind in rules.kinds.items() if kind.is_high)
    note("identifiers", "NO_HIGH_CONFIDENCE", f"Exactly one high-confidence identifier is needed: {known}.")


def _audience_id(data: dict[str, Any], note: _Note, rules: EventRules) -> str | None:
    audience_id = data.get("audience_id")
    if not isinstance(audience_id, str):
        note("data.audience_id", _missing_or_wrong(data, "audience_id"), "`audience_id` must be a string.")
        return None
    if problem := rules.audience_id_problem(audience_id):
        note("data.audience_id", "INVALID_VALUE", f"The audience id {problem}.")
        return None
    return audience_id


def _ts_ms(ts: Any, note: _Note, rules: EventRules, now_ms: int) -> int | None:
    if ts is None:
        return now_ms
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        note("data.ts", "WRONG_TYPE", f"`ts` must be a number of seconds, not {_kind_of(ts)}.")
        return None
    ts_ms = ts_ms_from(ts)
    if ts_ms is None:
        note("data.ts", "TOO_MANY_DECIMALS", "`ts` is in seconds with at most three decimals.")
        return None
    if ts_ms < 0:
        note("data.ts", "NEGATIVE", "`ts` is in seconds since 1970 and must not be negative.")
        return None
    if ts_ms > now_ms + rules.future_ms_max:
        ahead = f"`ts` is more than {rules.future_ms_max // 1000} seconds ahead of the clock"
        hint = "; it looks like milliseconds, and must be in seconds" if ts >= _SURELY_MILLISECONDS // 10 else ""
        note("data.ts", "IN_THE_FUTURE", f"{ahead}{hint}.")
        return None
    return ts_ms


def ts_ms_from(ts: float) -> int | None:
    """Milliseconds of a number of seconds; None if it has more than three decimals."""
    if isinstance(ts, int):
        return ts * 1000
    if abs(ts) > _SURELY_MILLISECONDS * 1000:
        return _FAR_MS if ts > 0 else -_FAR_MS
    # Exact: a number with three decimals is the double that is nearest to it, and so is the quotient of two integers.
    # (`round(ts, 3)` writes the number out and reads it again, which takes four times as long.)
    ts_ms = round(ts * 1000)
    return ts_ms if ts_ms / 1000 == ts else None


def _missing_or_wrong(container: dict[str, Any], field: str) -> str:
    return "MISSING" if field not in container else "WRONG_TYPE" if container[field] != "" else "INVALID_VALUE"


def _shown(name: str) -> str:
    """A name from outside, cut to a length that fits a message."""
    return name if len(name) <= 64 else f"{name[:61]}..."


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
