"""Requests to forget: what one says, `[{"fs_user_id": "u-17"}, {"email": "a@b.example"}]`, and what is noted of it."""

from typing import Final, Literal

import msgspec

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.refusals import MalformedBody

_DECODE: Final = msgspec.json.Decoder(list[dict[str, str]])


State = Literal["taking", "in_progress", "completed"]


class ForgetJob(msgspec.Struct, frozen=True):
    """One request."""

    id: str
    law: str
    state: State
    """taking: it is not known whether the identifiers were forgotten, because nobody was answered yet."""
    received_ms: int
    identifiers: int
    completed_ms: int | None = None


def parse_request(body: bytes, schema: IdentifierSchema, identifiers_max: int) -> list[bytes]:
    """The keys of all identifiers that are named, each once, in order.

    A low-confidence name is taken and has no key: nothing is ever kept about one.
    Raises MalformedBody, which names the place.
    """
    listed = _decoded(body)
    count = sum(map(len, listed))
    if not 1 <= count <= identifiers_max:
        raise MalformedBody(f"The body names {count} identifiers; 1 to {identifiers_max} are allowed.")
    keys: dict[bytes, None] = {}
    for position, identifiers in enumerate(listed):
        if not identifiers:
            raise MalformedBody(f"[{position}] names no identifier.")
        for name, value in identifiers.items():
            kind = schema.kinds.get(name)
            if kind is None:
                known = ", ".join(schema.kinds)
                raise MalformedBody(f"[{position}] has the unknown name {name[:100]!r}; known: {known}.")
            try:
                key = schema.key(kind, value)
            except ValueError as error:
                raise MalformedBody(f"[{position}].{name} {error}.") from None
            if kind.is_high:
                keys[key] = None
    return list(keys)


def _decoded(body: bytes) -> list[dict[str, str]]:
    try:
        return _DECODE.decode(body)
    except msgspec.ValidationError as error:
        raise MalformedBody(
            f'The body must be a list of objects such as [{{"fs_user_id": "u-17"}}]: {error}.'
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "empty" if not body.strip() else f"no valid JSON: {error}"
        raise MalformedBody(f"The body is {what}.") from None
