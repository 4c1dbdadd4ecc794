"""What the properties of the domain are tried with, and the model that they are compared with.

The pools are small on purpose: identifiers, audiences and times have to meet for anything interesting to happen.
"""

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from segmentd.domain.events import Change, EventRules
from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.domain.membership import AUDIENCE_NUMBER_MAX, V_BITS, word_of
from segmentd.domain.shard import Word

NOW_MS = 1_750_000_000_000
FUTURE_SECONDS_MAX = 3_600
SCHEMA = IdentifierSchema(
    [
        IdentifierKind("fs_user_id", Confidence.HIGH, 0),
        IdentifierKind("email", Confidence.HIGH, 1, lower_case=True),
        IdentifierKind("vuid", Confidence.LOW, 2),
    ]
)
RULES = EventRules(SCHEMA, future_seconds_max=FUTURE_SECONDS_MAX)

Model = dict[tuple[bytes, str], int]
"""(identifier key, audience id) → v: the whole state, kept by taking the maximum."""

KEYS = [SCHEMA.key(SCHEMA.kinds["fs_user_id"], f"u-{number}") for number in range(6)]
AUDIENCES = ["audience_1", "audience_2", "a.b:c@d+e~f-g", "Z"]
TIMES_MS = [0, 1, 1_700_000_000_000, 1_700_000_000_001, NOW_MS]

versions = st.builds(lambda ts_ms, bit: ts_ms * 2 + bit, st.sampled_from(TIMES_MS), st.integers(0, 1))
"""`v` of decisions that often fall on the same millisecond."""
changes: st.SearchStrategy[Change] = st.tuples(st.sampled_from(KEYS), st.sampled_from(AUDIENCES), versions)
words: st.SearchStrategy[int] = st.builds(
    word_of,
    st.sampled_from([0, 1, 2, 7, AUDIENCE_NUMBER_MAX]),
    st.one_of(versions, st.sampled_from([0, 1, (1 << V_BITS) - 1])),
)
keyed_words: st.SearchStrategy[Word] = st.tuples(st.sampled_from(KEYS), words)


def model_of(changes_made: Iterable[Change]) -> Model:
    """The state that a set of changes makes, in the simplest way there is."""
    model: Model = {}
    for key, audience_id, v in changes_made:
        model[key, audience_id] = max(v, model.get((key, audience_id), v))
    return model


def event_of(change: Change, **extra: Any) -> dict[str, Any]:
    """The event that asks for a change."""
    key, audience_id, v = change
    name, value = SCHEMA.parse_key(key)
    ts_ms = v >> 1
    return {
        "type": "passthrough",
        "action": "disqualify" if v & 1 else "qualify",
        "identifiers": {name: value},
        "data": {"audience_id": audience_id, "ts": ts_ms // 1000 if ts_ms % 1000 == 0 else ts_ms / 1000},
        **extra,
    }


def valid_event(**replaced: Any) -> dict[str, Any]:
    """One event that is right in every respect, but for what is replaced."""
    event: dict[str, Any] = {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": "u-1"},
        "data": {"audience_id": "audience_1", "ts": 1_748_851_070},
    }
    return {**event, **replaced}


def encoded(events: Any) -> bytes:
    """JSON as a client sends it."""
    return json.dumps(events).encode()


json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
json_values: st.SearchStrategy[Any] = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abts_", max_size=4), inner, max_size=3),
    max_leaves=6,
)

_timestamps = (
    st.none()
    | st.integers(-2, 2**64)
    | st.sampled_from([1_748_851_070, NOW_MS // 1000, NOW_MS // 1000 + FUTURE_SECONDS_MAX, NOW_MS])
    | st.integers(0, NOW_MS).map(lambda ts_ms: ts_ms / 1000)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_identifiers = st.dictionaries(
    st.sampled_from(["fs_user_id", "fs_user_id", "email", "vuid", "unknown"]),
    st.sampled_from(["u-1", "A@b.example", "", "\0", "x" * 257, "ü" * 128, "K"]) | json_values,
    max_size=2,
)
_audience_ids = st.sampled_from([*AUDIENCES, "", "-a", "a b", "é", "x" * 128, "x" * 129])
_sound_events = changes.map(event_of)
_doubtful_events = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["passthrough", "passthrough", "passthrough", "other", ""]) | json_values,
        "action": st.sampled_from(["qualify", "disqualify", "QUALIFY", ""]) | json_values,
        "identifiers": _identifiers | json_values,
        "data": st.fixed_dictionaries(
            {}, optional={"audience_id": _audience_ids | json_values, "ts": _timestamps | json_values, "x": json_values}
        )
        | json_values,
        "extra": json_values,
    },
)


def _with_one_field_replaced(event: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    return {**event, field: value}


_nearly_sound_events = st.builds(
    _with_one_field_replaced,
    _sound_events,
    st.sampled_from(["type", "action", "identifiers", "data", "extra"]),
    json_values | _identifiers,
)
events: st.SearchStrategy[Any] = _sound_events | _nearly_sound_events | _doubtful_events | json_values
"""Events from right in every respect to no event at all."""
