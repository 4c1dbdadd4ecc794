"""What executing an operation costs, at most: one for each field that is resolved.

A validated operation is compiled once; what is left to do for a request is a little arithmetic over its variables and
the number of segments. Lists count with the size of the page: `first` or `last`, never more than there are segments or
names in `subset`. Directives that leave fields out are not looked at, so the cost is an upper bound.
Introspection is counted exactly, by walking the schema as execution would.
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    introspection_types,
    is_list_type,
)

from segmentd.graphql.members import CONNECTION_TYPE as MEMBERS_TYPE
from segmentd.graphql.merging import fragments_of, merged_fields, selections_below
from segmentd.graphql.pricing import (
    AllSegments,
    Connection,
    Cost,
    Literal,
    Measure,
    MembersConnection,
    NamedType,
    Number,
    Price,
    Subset,
    Variable,
)
from segmentd.graphql.schema import CONNECTION_TYPES

# Up to 64 entries of up to 1,152 characters each: a metadata field writes about as much as ten others.
METADATA_COST: Final = 10
_UNBOUNDED: Final = Literal(None)


def compile_costs(schema: GraphQLSchema, document: DocumentNode, cost_max: int) -> dict[str | None, Cost]:
    """The cost of each operation by its name; a single one also under None.

    document: validated, and within the limits of `check_structure`. cost_max: where counting may stop.
    """
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    costs: dict[str | None, Cost] = {
        node.name.value if node.name else None: _Compiler(schema, document, node, cost_max).compile()
        for node in operations
    }
    if len(operations) == 1:
        costs[None] = next(iter(costs.values()))
    return costs


class _Compiler:
    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, cost_max: int
    ) -> None:
        self._schema = schema
        self._operation = operation
        self._cost_max = cost_max
        self._defaults = {node.variable.name.value: node.default_value for node in operation.variable_definitions or ()}
        self._fragments = fragments_of(document)

    def compile(self) -> Cost:
        root = self._schema.query_type
        assert root is not None  # noqa: S101  # the schema was built with one
        return self._selections(root, [self._operation.selection_set], None)

    def _selections(
        self, parent: GraphQLObjectType, selection_sets: list[SelectionSetNode], edges: list[Cost] | None
    ) -> Cost:
        """edges: takes the costs of an edge where `parent` is a connection."""
        costs = [
            self._field(parent, fields[0], selections_below(fields), edges)
            for fields in merged_fields(selection_sets, self._fragments)[0].values()
        ]
        return _sum(costs)

    def _field(
        self, parent: GraphQLObjectType, field: FieldNode, below: list[SelectionSetNode], edges: list[Cost] | None
    ) -> Cost:
        """below: the selections of all fields that are merged with `field`; they have the same arguments."""
        name = field.name.value
        if name in {"__schema", "__type"}:
            return self._introspection(field, below)
        if not below:
            return Cost(METADATA_COST if name == "metadata" else 1)
        type_ = get_named_type(parent.fields[name].type)
        assert isinstance(type_, GraphQLObjectType)  # noqa: S101  # there are no interfaces and unions
        if edges is not None and name == "edges":
            edges.append(self._selections(type_, below, None))
            return Cost(1)
        each: list[Cost] | None = [] if type_.name in {MEMBERS_TYPE, *CONNECTION_TYPES} else None
        inside = self._selections(type_, below, each)
        page = () if each is None else (self._connection(type_, field, _sum(each)),)
        return Cost(1 + inside.fixed, (*page, *inside.varying))

    def _connection(self, type_: GraphQLObjectType, field: FieldNode, each: Cost) -> Price:
        if type_.name == MEMBERS_TYPE:
            size = self._argument(field, "first")
            return MembersConnection(_UNBOUNDED if size is None else self._number(size), each)
        subset = self._argument(field, "subset")
        listed = AllSegments() if subset is None else Subset(self._length(subset))
        given = [self._argument(field, name) for name in ("first", "last")]
        return Connection(listed, tuple([self._number(value) for value in given if value is not None]), each)

    def _argument(self, field: FieldNode, name: str) -> ValueNode | None:
        return next((argument.value for argument in field.arguments or () if argument.name.value == name), None)

    def _number(self, value: ValueNode) -> Number:
        """The value of an Int argument."""
        if isinstance(value, IntValueNode):
            return Literal(int(value.value))
        return self._variable(value, self._number, _number_of)

    def _length(self, value: ValueNode) -> Number:
        """How many items a list argument has."""
        if isinstance(value, ListValueNode):
            return Literal(len(value.values))
        if isinstance(value, StringValueNode):
            return Literal(1)
        return self._variable(value, self._length, _length_of)

    def _variable(self, value: ValueNode, compile_default: Callable[[ValueNode], Number], measure: Measure) -> Number:
        if not isinstance(value, VariableNode):
            return _UNBOUNDED
        default = self._defaults.get(value.name.value)
        return Variable(value.name.value, measure, _UNBOUNDED if default is None else compile_default(default))

    def _introspection(self, field: FieldNode, below: list[SelectionSetNode]) -> Cost:
        if field.name.value == "__schema":
            return Cost(1 + self._walk("__Schema", below, [self._schema]))
        name = self._argument(field, "name")
        if isinstance(name, StringValueNode):
            return Cost(1 + self._walk_type(below, name.value))
        variable = name.name.value if isinstance(name, VariableNode) else ""
        default = self._defaults.get(variable)
        otherwise = default.value if isinstance(default, StringValueNode) else None
        return Cost(1, (NamedType(partial(self._walk_type, below), variable, otherwise),))

    def _walk_type(self, below: list[SelectionSetNode], name: Any) -> int:
        type_ = self._schema.type_map.get(name) if isinstance(name, str) else None
        return 0 if type_ is None else self._walk("__Type", below, [type_])

    def _walk(self, type_name: str, selection_sets: list[SelectionSetNode], objects: list[Any]) -> int:
        """How many fields introspection resolves below these objects; stops early past `cost_max`."""
        parent = introspection_types[type_name]
        assert isinstance(parent, GraphQLObjectType)  # noqa: S101  # only those have selections
        cost = 0
        for fields in merged_fields(selection_sets, self._fragments)[0].values():
            cost += len(objects)
            if cost > self._cost_max:
                break
            if below := selections_below(fields):
                definition = parent.fields[fields[0].name.value]
                found = [item for parent_object in objects for item in self._resolved(definition, parent_object)]
                cost += self._walk(get_named_type(definition.type).name, below, found)
        return cost

    def _resolved(self, definition: GraphQLField, parent_object: Any) -> Iterable[Any]:
        arguments = {"includeDeprecated": True} if "includeDeprecated" in definition.args else {}
        assert definition.resolve is not None  # noqa: S101  # every introspection field has one
        value = definition.resolve(parent_object, cast("Any", SimpleNamespace(schema=self._schema)), **arguments)
        if value is None:
            return ()
        listed: Iterable[Any] = value if is_list_type(get_nullable_type(definition.type)) else (value,)
        return listed


def _sum(costs: list[Cost]) -> Cost:
    """Of costs that come together."""
    return Cost(sum(cost.fixed for cost in costs), tuple(price for cost in costs for price in cost.varying))


def _number_of(given: Any) -> int | None:
    return given if isinstance(given, int) else None


def _length_of(given: Any) -> int | None:
    if isinstance(given, list):
        return len(given)
    return None if given is None else 1
