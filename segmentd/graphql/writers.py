"""What a plan is made of: values that write pieces of the answer.

Each kind of piece is a class without state of a request; what it needs to know was looked up when the plan was
compiled (`plans.py`). Writers hold bytes, functions of the schema, and each other, never in a circle, so the garbage
collector need not know them: a cache full of plans costs a collection nothing (`gc=False`; tuples of such values are
let go of by the first collection that sees them).

`write` everywhere: (source or value, info, raw variables) → JSON. Raises whatever stands in its way.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from segmentd.graphql.arguments import ABSENT, DoubtError, Reader, Variables
from segmentd.graphql.context import ReadContext
from segmentd.graphql.resolvers import Membership

EDGES_KEPT_MAX: Final = 256
EDGE_BYTES_MAX: Final = 512

_encode: Final = msgspec.json.Encoder().encode


class PlanInfo(Struct, frozen=True):
    """What resolvers get in the place of graphql-core's info; they look at nothing but the context."""

    context: ReadContext


class Writer(Protocol):
    """Writes one value."""

    def write(self, source: Any, info: PlanInfo, variables: Variables) -> bytes: ...


Pieces = tuple[tuple[bytes, Writer], ...]
"""What stands before each value of an object (a bracket or a comma, the name, a colon), and the value."""
Resolve = Callable[..., Any]


class Fixed(Struct, frozen=True, gc=False):
    """A field that is known beforehand."""

    written: bytes

    def write(self, _source: Any, _info: PlanInfo, _variables: Variables) -> bytes:
        return self.written


class Field(Struct, frozen=True, gc=False):
    """A field without arguments."""

    resolve: Resolve
    value: Writer

    def write(self, source: Any, info: PlanInfo, variables: Variables) -> bytes:
        return self.value.write(self.resolve(source, info), info, variables)


class FieldWithArguments(Struct, frozen=True, gc=False):
    """A field with some."""

    resolve: Resolve
    arguments: tuple[tuple[str, Reader], ...]
    value: Writer

    def write(self, source: Any, info: PlanInfo, variables: Variables) -> bytes:
        given = {}
        for name, reader in self.arguments:
            value = reader.read(variables)
            if value is not ABSENT:
                given[name] = value
        return self.value.write(self.resolve(source, info, **given), info, variables)


class Scalar(Struct, frozen=True, gc=False):
    """coerce: the type's own way from a resolved value to one that JSON has."""

    coerce: Callable[[Any], Any]
    required: bool

    def write(self, value: Any, _info: PlanInfo, _variables: Variables) -> bytes:
        return _null(self.required) if value is None else _encode(self.coerce(value))


class Object(Struct, frozen=True, gc=False):
    """An object with several fields."""

    pieces: Pieces
    required: bool

    def write(self, value: Any, info: PlanInfo, variables: Variables) -> bytes:
        if value is None:
            return _null(self.required)
        return b"".join([key + piece.write(value, info, variables) for key, piece in self.pieces]) + b"}"


class ObjectOfOne(Struct, frozen=True, gc=False):
    """An object with one field, as most are in the SDKs' query."""

    key: bytes
    field: Writer
    required: bool

    def write(self, value: Any, info: PlanInfo, variables: Variables) -> bytes:
        if value is None:
            return _null(self.required)
        return self.key + self.field.write(value, info, variables) + b"}"


class Items(Struct, frozen=True, gc=False):
    """A list."""

    item: Writer
    required: bool

    def write(self, values: Any, info: PlanInfo, variables: Variables) -> bytes:
        if values is None:
            return _null(self.required)
        write = self.item.write
        return b"[" + b",".join([write(value, info, variables) for value in values]) + b"]"


class RememberedEdge(Struct, frozen=True, gc=False):
    """An edge that was written before is not written again."""

    edge: Writer
    kept: dict[tuple[str, int, str], bytes]

    def write(self, found: Membership, info: PlanInfo, variables: Variables) -> bytes:
        segment = found.segment
        key = (segment.segment_id, segment.revision, found.state)
        known = self.kept.get(key)
        return self._written(key, found, info, variables) if known is None else known

    def _written(self, key: tuple[str, int, str], found: Membership, info: PlanInfo, variables: Variables) -> bytes:
        written = self.edge.write(found, info, variables)
        if len(written) <= EDGE_BYTES_MAX:
            if len(self.kept) >= EDGES_KEPT_MAX:
                self.kept.clear()
            self.kept[key] = written
        return written


class Plan(Struct, frozen=True, gc=False):
    """A whole answer."""

    pieces: Pieces

    def write(self, info: PlanInfo, variables: Variables) -> bytes:
        """variables: raw. Raises whatever stands in its way."""
        data = b"".join([key + piece.write(None, info, variables) for key, piece in self.pieces])
        return b'{"data":' + data + b"}}"


def _null(required: bool) -> bytes:
    if required:
        raise DoubtError
    return b"null"
