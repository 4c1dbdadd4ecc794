"""Plans: valid documents compiled once into closures that write the answer's bytes.

A plan is the executor without its generality: the same resolvers and the same coercion, called from closures that
know every name, type and argument. It never makes an error. What is rare or doubtful (directives, defaults, input
objects, introspection) gets no plan; a request whose variables are not plainly right, or whose resolvers object, gets
`DoubtError` or the resolver's error, and the executor answers instead.

Invariants:
1. What a plan writes is, parsed, what the executor answers, keys in the same order.
2. A plan holds no state of the service, except edges written before: at most `EDGES_KEPT_MAX` of at most
   `EDGE_BYTES_MAX` bytes, under the segment's revision, which never comes back with another content.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    VisitorAction,
    get_nullable_type,
    visit,
)

from segmentd.graphql.arguments import ABSENT, ArgumentReader, DoubtError, Variables
from segmentd.graphql.context import ReadContext
from segmentd.graphql.merging import fragments_of, merged_fields, selections_below
from segmentd.graphql.resolvers import Membership

EDGES_KEPT_MAX: Final = 256
EDGE_BYTES_MAX: Final = 512
_EDGE: Final = "CustomerAudienceEdge"
# What an edge shows that changes only with the segment's revision or the customer's state.
_STEADY: Final = frozenset(
    {
        *("__typename", "cursor", "node", "name", "state"),
        *("revision", "description", "is_ready", "metadata", "external_audience_id"),
    }
)


class PlanInfo(msgspec.Struct, frozen=True):
    """What resolvers get in the place of graphql-core's info; they look at nothing but the context."""

    context: ReadContext


Plan = Callable[[PlanInfo, Variables], bytes]
"""(info, raw variables) → the whole answer as JSON. Raises whatever stands in its way."""
_Write = Callable[[Any, PlanInfo, Variables], bytes]
"""(source or value, info, variables) → JSON."""

_encode: Final = msgspec.json.Encoder().encode


def compile_plan(schema: GraphQLSchema, document: DocumentNode) -> Plan | None:
    """The plan of a valid document; None where it is not simple enough to have one."""
    (operation, *others) = (node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    if others or _has_directives(document):
        return None
    try:
        return _Compiler(schema, document, operation).compile()
    except DoubtError:
        return None


class _Compiler:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._operation = operation
        self._fragments = fragments_of(document)
        self._arguments = ArgumentReader(operation)

    def compile(self) -> Plan:
        root = self._schema.query_type
        assert root is not None  # noqa: S101  # the schema was built with one
        write = self._object(root, [self._operation.selection_set])
        return lambda info, variables: b'{"data":' + write(None, info, variables) + b"}"

    def _object(self, parent: GraphQLObjectType, selections: list[SelectionSetNode]) -> _Write:
        merged, _ = merged_fields(selections, self._fragments)
        if not merged:
            raise DoubtError(parent.name)  # `{}`, which the parser lets pass
        pieces = [(f',"{name}":'.encode(), self._field(parent, fields)) for name, fields in merged.items()]
        pieces[0] = (b"{" + pieces[0][0][1:], pieces[0][1])
        if len(pieces) == 1:
            prefix, only = pieces[0]
            return lambda source, info, variables: prefix + only(source, info, variables) + b"}"

        def write(source: Any, info: PlanInfo, variables: Variables) -> bytes:
            return b"".join([key + value(source, info, variables) for key, value in pieces]) + b"}"

        return write

    def _field(self, parent: GraphQLObjectType, fields: list[FieldNode]) -> _Write:
        """fields: those of one response name; valid ones have the same arguments."""
        name = fields[0].name.value
        if name == "__typename":
            typename = _encode(parent.name)
            return lambda _source, _info, _variables: typename
        field = parent.fields.get(name)
        if field is None or field.resolve is None:
            raise DoubtError(name)
        resolve = field.resolve
        complete = self._complete(field.type, selections_below(fields))
        arguments = self._arguments.of(field, fields[0])
        if not arguments:
            return lambda source, info, variables: complete(resolve(source, info), info, variables)

        def write(source: Any, info: PlanInfo, variables: Variables) -> bytes:
            given = {name: value for name, read in arguments if (value := read(variables)) is not ABSENT}
            return complete(resolve(source, info, **given), info, variables)

        return write

    def _complete(self, type_: GraphQLOutputType, below: list[SelectionSetNode]) -> _Write:
        """Writes a resolved value of this type."""
        required = isinstance(type_, GraphQLNonNull)
        write = self._present(type_.of_type if isinstance(type_, GraphQLNonNull) else type_, below)

        def complete(value: Any, info: PlanInfo, variables: Variables) -> bytes:
            if value is not None:
                return write(value, info, variables)
            if required:
                raise DoubtError
            return b"null"

        return complete

    def _present(self, type_: GraphQLOutputType, below: list[SelectionSetNode]) -> _Write:
        """Writes a value that is not null."""
        if isinstance(type_, GraphQLScalarType):
            coerce = type_.coerce_output_value
            return lambda value, _info, _variables: _encode(coerce(value))
        if isinstance(type_, GraphQLObjectType):
            return self._object(type_, below)
        if isinstance(type_, GraphQLList):
            return _list(self._item(type_.of_type, below))
        raise DoubtError(str(type_))

    def _item(self, type_: GraphQLOutputType, below: list[SelectionSetNode]) -> _Write:
        write = self._complete(type_, below)
        nullable = get_nullable_type(type_)
        if isinstance(nullable, GraphQLObjectType) and nullable.name == _EDGE and self._is_steady(below):
            return _remembered(write)
        return write

    def _is_steady(self, selections: list[SelectionSetNode]) -> bool:
        merged, _ = merged_fields(selections, self._fragments)
        return all(
            fields[0].name.value in _STEADY and self._is_steady(selections_below(fields)) for fields in merged.values()
        )


def _list(item: _Write) -> _Write:
    def write(values: Any, info: PlanInfo, variables: Variables) -> bytes:
        return b"[" + b",".join([item(value, info, variables) for value in values]) + b"]"

    return write


def _remembered(write: _Write) -> _Write:
    """An edge that was written before is not written again."""
    kept: dict[tuple[str, int, str], bytes] = {}

    def edge(found: Membership, info: PlanInfo, variables: Variables) -> bytes:
        segment = found.segment
        key = (segment.segment_id, segment.revision, found.state)
        known = kept.get(key)
        if known is not None:
            return known
        written = write(found, info, variables)
        if len(written) <= EDGE_BYTES_MAX:
            if len(kept) >= EDGES_KEPT_MAX:
                kept.clear()
            kept[key] = written
        return written

    return edge


class _DirectiveFinder(Visitor):
    found = False

    def enter_directive(self, _node: DirectiveNode, *_: Any) -> VisitorAction:
        self.found = True
        return self.BREAK


def _has_directives(document: DocumentNode) -> bool:
    finder = _DirectiveFinder()
    visit(document, finder)
    return finder.found
