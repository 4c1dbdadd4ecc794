"""Reading uploads: bytes → changes, or every problem of every invalid event.

Two roads give the same answer. The short one decodes straight into typed structs and takes only events that are right
in every respect; at the first doubt the whole body is read again on the long one (`events_examined`), which looks at
every event and names everything that is wrong. All or nothing: problems mean that no change leaves this module.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from segmentd.domain.encoding import require_utf8
from segmentd.domain.events_examined import ACTIONS, PASSTHROUGH, Change, EventRules, Problems, examine
from segmentd.domain.refusals import InvalidEvents, MalformedBody, PassthroughDisabled

__all__ = ["Change", "EventRules", "ParsedEvents", "parse_events"]


class ParsedEvents(msgspec.Struct, frozen=True):
    """A valid request."""

    changes: list[Change]
    """(identifier key, audience id, v) in the order of the request."""
    qualify: int
    disqualify: int
    dropped: int
    """Events of other types: accepted, counted, without effect."""


# What holds no cycle is nothing for the garbage collector, which would look at thousands of these for each request.
class _Data(msgspec.Struct, gc=False):
    audience_id: str = ""
    ts: int | float | None = None


class _Event(msgspec.Struct, gc=False):
    data: _Data
    type: str = ""
    action: str = ""
    identifiers: dict[str, str] = {}


_DECODE_TYPED: Final = msgspec.json.Decoder(list[_Event])
_DECODE_TYPED_ONE: Final = msgspec.json.Decoder(_Event)
# With a hook, a number beyond the range of doubles (1e400) is infinity, which `examine` can name, and no broken JSON.
_DECODE_ANY: Final = msgspec.json.Decoder(float_hook=float)
_WHITE_SPACE: Final = b" \t\r\n"
SLICE_EVENTS: Final = 100
"""Events that are read before others get a turn: some 0.1 ms, or 0.5 where something is wrong."""


class _DoubtError(Exception):
    """The short road meets something that it does not fully understand."""


def _go_on() -> None:
    """What happens between two slices where nobody waits."""


def parse_events(
    body: bytes, *, ndjson: bool, rules: EventRules, now_ms: int, between: Callable[[], None] = _go_on
) -> ParsedEvents:
    """Read one upload.

    body: inflated UTF-8 JSON, one event or an array; with `ndjson` one event a line. now_ms: the time of receipt.
    between: called between two slices of at most `SLICE_EVENTS`, so that the caller can do something else meanwhile.
    Raises MalformedBody (no JSON, empty, too many events), InvalidEvents, PassthroughDisabled.
    """
    require_utf8(body)
    try:
        parsed = _parse_typed(body, ndjson, rules, now_ms, between)
    except (msgspec.ValidationError, _DoubtError):
        parsed = _parse_examined(body, ndjson, rules, now_ms, between)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(body, ndjson, error) from None
    if parsed.changes and not rules.passthrough_enabled:
        raise PassthroughDisabled
    return parsed


def _is_array(body: bytes) -> bool:
    return body.lstrip(_WHITE_SPACE)[:1] == b"["


def _check_count(count: int, rules: EventRules) -> None:
    if not count:
        raise MalformedBody("The request has no events; send one event or an array of them.")
    if count > rules.events_max:
        raise MalformedBody(
            f"The request has {count} events; at most {rules.events_max} are allowed ([limits] events_per_request_max)."
        )


def _parse_typed(
    body: bytes, ndjson: bool, rules: EventRules, now_ms: int, between: Callable[[], None] = _go_on
) -> ParsedEvents:
    if ndjson:
        events = _DECODE_TYPED_ONE.decode_lines(body)
    elif _is_array(body):
        events = _DECODE_TYPED.decode(body)
    else:
        events = [_DECODE_TYPED_ONE.decode(body)]
    _check_count(len(events), rules)
    changes: list[Change] = []
    disqualify = _typed_changes(events[:SLICE_EVENTS], changes, rules, now_ms)
    for start in range(SLICE_EVENTS, len(events), SLICE_EVENTS):
        between()
        disqualify += _typed_changes(events[start : start + SLICE_EVENTS], changes, rules, now_ms)
    return ParsedEvents(
        changes=changes,
        qualify=len(changes) - disqualify,
        disqualify=disqualify,
        dropped=len(events) - len(changes),
    )


def _typed_changes(events: Iterable[_Event], changes: list[Change], rules: EventRules, now_ms: int) -> int:
    """Add the changes of those events that ask for one; returns how many of them disqualify. Raises _DoubtError.

    One flat loop without calls: this is most of what an upload of hundreds takes.
    """
    prefix_of, lower_cased, key_bytes_max = rules.prefixes.get, rules.lower_cased, rules.key_bytes_max
    action_bit, ts_max = ACTIONS.get, (now_ms + rules.future_ms_max) / 1000
    known_audiences, is_audience_id = rules.known_audience_ids, rules.is_audience_id
    disqualify = 0
    take_change = changes.append
    for event in events:
        if event.type != PASSTHROUGH:
            if not event.type:
                raise _DoubtError
            continue
        key = None
        for name, value in event.identifiers.items():
            prefix = prefix_of(name)
            if prefix is None:
                raise _DoubtError
            if prefix:
                # The short form of IdentifierSchema.key; what is not plainly right is for the other road.
                if key is not None or not value or not value.isprintable():
                    raise _DoubtError
                key = prefix + (value.lower() if name in lower_cased else value).encode()
        disqualified = action_bit(event.action)
        if key is None or disqualified is None or len(key) > key_bytes_max:
            raise _DoubtError
        data = event.data
        audience_id, ts = data.audience_id, data.ts
        if audience_id not in known_audiences and not is_audience_id(audience_id):
            raise _DoubtError
        ts_ms = now_ms
        # As ts_ms_from, without its call.
        if ts is not None and (not 0 <= ts <= ts_max or (ts_ms := round(ts * 1000)) / 1000 != ts):
            raise _DoubtError
        take_change((key, audience_id, ts_ms * 2 + disqualified))
        disqualify += disqualified
    return disqualify


def _parse_examined(
    body: bytes, ndjson: bool, rules: EventRules, now_ms: int, between: Callable[[], None] = _go_on
) -> ParsedEvents:
    try:
        events = _decode_any(body, ndjson)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(body, ndjson, error) from None
    _check_count(len(events), rules)
    problems = Problems(rules.invalids_listed_max)
    changes: list[Change] = []
    disqualify = 0
    for number, event in enumerate(events):
        if number and not number % SLICE_EVENTS:
            between()
        change = examine(event, problems.of(number), rules, now_ms)
        if change is not None:
            changes.append(change)
            disqualify += change[2] & 1
    if problems.total:
        raise InvalidEvents(problems.listed, problems.total)
    return ParsedEvents(
        changes=changes, qualify=len(changes) - disqualify, disqualify=disqualify, dropped=len(events) - len(changes)
    )


def _decode_any(body: bytes, ndjson: bool) -> list[Any]:
    if ndjson:
        return list(_DECODE_ANY.decode_lines(body))
    decoded = _DECODE_ANY.decode(body)
    return decoded if isinstance(decoded, list) else [decoded]


def _malformed(body: bytes, ndjson: bool, error: Exception) -> MalformedBody:
    if not body.strip(_WHITE_SPACE):
        return MalformedBody("The body is empty; send one event or an array of them.")
    if isinstance(error, RecursionError):
        return MalformedBody("The body is no JSON that is read here: it is nested too deeply.")
    if ndjson and (at := _bad_line(body, _DECODE_ANY.decode)) is not None:
        line, reason = at
        return MalformedBody(f"Line {line} of the body is no valid JSON: {reason}.")
    return MalformedBody(f"The body is no valid JSON: {_reason(error)}.")


def _bad_line(body: bytes, decode: Callable[[bytes], object]) -> tuple[int, str] | None:
    """Number (from 1) and reason of the first line that is no JSON."""
    for number, line in enumerate(body.split(b"\n"), start=1):
        try:
            if line.strip(_WHITE_SPACE):
                decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            return number, _reason(error)
    return None


def _reason(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ")
