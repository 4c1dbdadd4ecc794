"""Plans: valid documents compiled once into what writes the answer's bytes (`writers.py`).

A plan is the executor without its generality: the same resolvers and the same coercion, called by writers that
know every name, type and argument. It never makes an error. What is rare or doubtful (directives, defaults, input
objects, introspection) gets no plan; a request whose variables are not plainly right, or whose resolvers object, gets
`DoubtError` or the resolver's error, and the executor answers instead.

Invariants:
1. What a plan writes is, parsed, what the executor answers, keys in the same order.
2. A plan holds no state of the service, except edges written before: at most `EDGES_KEPT_MAX` of at most
   `EDGE_BYTES_MAX` bytes, under the segment's revision, which never comes back with another content.
3. A plan is nothing that the garbage collector has to look through: closures in its place, five objects a field, made
   every full collection over a full cache stop the loop for a tenth of a second. It keeps no part of the document.
"""

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

from segmentd.graphql.arguments import Arguments, DoubtError
from segmentd.graphql.merging import fragments_of, merged_fields, selections_below
from segmentd.graphql.writers import (
    Field,
    FieldWithArguments,
    Fixed,
    Items,
    Object,
    ObjectOfOne,
    Pieces,
    Plan,
    RememberedEdge,
    Scalar,
    Writer,
)

_EDGE: Final = "CustomerAudienceEdge"
# What an edge shows that changes only with the segment's revision or the customer's state.
_STEADY: Final = frozenset(
    {
        *("__typename", "cursor", "node", "name", "state"),
        *("revision", "description", "is_ready", "metadata", "external_audience_id"),
    }
)


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
        self._arguments = Arguments(operation)

    def compile(self) -> Plan:
        root = self._schema.query_type
        assert root is not None  # noqa: S101  # the schema was built with one
        return Plan(self._pieces(root, [self._operation.selection_set]))

    def _pieces(self, parent: GraphQLObjectType, selections: list[SelectionSetNode]) -> Pieces:
        merged, _ = merged_fields(selections, self._fragments)
        if not merged:
            raise DoubtError(parent.name)  # `{}`, which the parser lets pass
        return tuple(
            [
                (f'{"," if number else "{"}"{name}":'.encode(), self._field(parent, fields))
                for number, (name, fields) in enumerate(merged.items())
            ]
        )

    def _field(self, parent: GraphQLObjectType, fields: list[FieldNode]) -> Writer:
        """fields: those of one response name; valid ones have the same arguments."""
        name = fields[0].name.value
        if name == "__typename":
            return Fixed(_encode(parent.name))
        field = parent.fields.get(name)
        if field is None or field.resolve is None:
            raise DoubtError(name)
        value = self._value(field.type, selections_below(fields))
        arguments = self._arguments.of(field, fields[0])
        return FieldWithArguments(field.resolve, arguments, value) if arguments else Field(field.resolve, value)

    def _value(self, type_: GraphQLOutputType, below: list[SelectionSetNode]) -> Writer:
        """Writes a resolved value of this type."""
        required = isinstance(type_, GraphQLNonNull)
        nullable = get_nullable_type(type_)
        if isinstance(nullable, GraphQLScalarType):
            return Scalar(nullable.coerce_output_value, required)
        if isinstance(nullable, GraphQLObjectType):
            return _object(self._pieces(nullable, below), required=required)
        if isinstance(nullable, GraphQLList):
            return Items(self._item(nullable.of_type, below), required)
        raise DoubtError(str(type_))

    def _item(self, type_: GraphQLOutputType, below: list[SelectionSetNode]) -> Writer:
        item = self._value(type_, below)
        nullable = get_nullable_type(type_)
        if isinstance(nullable, GraphQLObjectType) and nullable.name == _EDGE and self._is_steady(below):
            return RememberedEdge(item, {})
        return item

    def _is_steady(self, selections: list[SelectionSetNode]) -> bool:
        merged, _ = merged_fields(selections, self._fragments)
        return all(
            fields[0].name.value in _STEADY and self._is_steady(selections_below(fields)) for fields in merged.values()
        )


def _object(pieces: Pieces, *, required: bool) -> Writer:
    if len(pieces) > 1:
        return Object(pieces, required)
    key, field = pieces[0]
    return ObjectOfOne(key, field, required)


class _DirectiveFinder(Visitor):
    found = False

    def enter_directive(self, _node: DirectiveNode, *_: Any) -> VisitorAction:
        self.found = True
        return self.BREAK


def _has_directives(document: DocumentNode) -> bool:
    finder = _DirectiveFinder()
    visit(document, finder)
    return finder.found
