"""What executing an operation costs, at most: one for each field that is resolved.

A validated operation is compiled once; what is left to do for a request is a little arithmetic over its variables and
the number of segments. Lists count with the size of the page: `first` or `last`, never more than there are segments or
names in `subset`. Directives that leave fields out are not looked at, so the cost is an upper bound.
Introspection is counted exactly, by walking the schema as execution would.
"""

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

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
from segmentd.graphql.members import FIRST_DEFAULT
from segmentd.graphql.merging import fragments_of, merged_fields, selections_below
from segmentd.graphql.schema import CONNECTION_TYPES

Variables = Mapping[str, Any]
Evaluate = Callable[[Variables, int], int]
"""(raw variables, number of segments) → cost."""

# Up to 64 entries of up to 1,152 characters each: a metadata field writes about as much as ten others.
METADATA_COST: Final = 10


class Cost(NamedTuple):
    """A compiled cost: what is always there, and what depends on the request."""

    fixed: int
    varying: tuple[Evaluate, ...] = ()

    def at(self, variables: Variables, segments: int) -> int:
        """variables: raw, possibly wrong ones (then the request is refused later). segments: how many there are."""
        cost = self.fixed
        for evaluate in self.varying:
            cost += evaluate(variables, segments)
        return cost


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
        self, parent: GraphQLObjectType, selection_sets: list[SelectionSetNode], page: Evaluate | None
    ) -> Cost:
        """page: the size of the page where `parent` is a connection."""
        fixed = 0
        varying: list[Evaluate] = []
        for fields in merged_fields(selection_sets, self._fragments)[0].values():
            cost = self._field(parent, fields[0], selections_below(fields), page)
            fixed += cost.fixed
            varying += cost.varying
        return Cost(fixed, tuple(varying))

    def _field(
        self, parent: GraphQLObjectType, field: FieldNode, below: list[SelectionSetNode], page: Evaluate | None
    ) -> Cost:
        """below: the selections of all fields that are merged with `field`; they have the same arguments."""
        name = field.name.value
        if name in {"__schema", "__type"}:
            return self._introspection(field, below)
        if not below:
            return Cost(METADATA_COST if name == "metadata" else 1)
        type_ = get_named_type(parent.fields[name].type)
        assert isinstance(type_, GraphQLObjectType)  # noqa: S101  # there are no interfaces and unions
        if page is not None and name == "edges":
            return Cost(1, (_times(page, self._selections(type_, below, None)),))
        if type_.name == MEMBERS_TYPE:
            members = self._members(field)
            inside = self._selections(type_, below, members)
            return Cost(1 + inside.fixed, (members, *inside.varying))
        if type_.name not in CONNECTION_TYPES:
            inside = self._selections(type_, below, None)
            return Cost(1 + inside.fixed, inside.varying)
        listed = self._listed(field)
        inside = self._selections(type_, below, self._page(field, listed))
        # Finding the items is work even where the page shows few of them.
        return Cost(1 + inside.fixed, (listed, *inside.varying))

    def _listed(self, field: FieldNode) -> Evaluate:
        """How many items the whole list may have."""
        subset = self._argument(field, "subset")
        if subset is None:
            return lambda _variables, segments: segments
        length = self._length(subset)

        def listed(variables: Variables, segments: int) -> int:
            names = length(variables)
            return segments if names is None else names

        return listed

    def _page(self, field: FieldNode, listed: Evaluate) -> Evaluate:
        numbers = [
            self._number(value) for name in ("first", "last") if (value := self._argument(field, name)) is not None
        ]

        def page(variables: Variables, segments: int) -> int:
            size = min(listed(variables, segments), segments)
            for number in numbers:
                bound = number(variables)
                if bound is not None and bound < size:
                    size = bound
            return max(0, size)

        return page

    def _members(self, field: FieldNode) -> Evaluate:
        """How many members a page may have; what is too many is told by the resolver."""
        given = self._argument(field, "first")
        number = None if given is None else self._number(given)

        def page(variables: Variables, _segments: int) -> int:
            size = None if number is None else number(variables)
            return FIRST_DEFAULT if size is None else max(0, size)

        return page

    def _argument(self, field: FieldNode, name: str) -> ValueNode | None:
        return next((argument.value for argument in field.arguments or () if argument.name.value == name), None)

    def _number(self, value: ValueNode) -> Callable[[Variables], int | None]:
        """The value of an Int argument; None where it sets no bound."""
        if isinstance(value, IntValueNode):
            literal = int(value.value)
            return lambda _variables: literal
        return self._variable(value, self._number, lambda given: given if isinstance(given, int) else None)

    def _length(self, value: ValueNode) -> Callable[[Variables], int | None]:
        """How many items a list argument has; None where it is null."""
        if isinstance(value, ListValueNode):
            count = len(value.values)
            return lambda _variables: count
        if isinstance(value, StringValueNode):
            return lambda _variables: 1
        return self._variable(value, self._length, _length_of)

    def _variable(
        self,
        value: ValueNode,
        compile_default: Callable[[ValueNode], Callable[[Variables], int | None]],
        read: Callable[[Any], int | None],
    ) -> Callable[[Variables], int | None]:
        if not isinstance(value, VariableNode):
            return lambda _variables: None
        name = value.name.value
        default = self._defaults.get(name)
        otherwise = (lambda _variables: None) if default is None else compile_default(default)
        return lambda variables: read(variables[name]) if name in variables else otherwise(variables)

    def _introspection(self, field: FieldNode, below: list[SelectionSetNode]) -> Cost:
        if field.name.value == "__schema":
            return Cost(1 + self._walk("__Schema", below, [self._schema]))
        name = self._argument(field, "name")
        if isinstance(name, StringValueNode):
            return Cost(1 + self._walk_type(below, name.value))
        variable = name.name.value if isinstance(name, VariableNode) else ""
        default = self._defaults.get(variable)
        otherwise = default.value if isinstance(default, StringValueNode) else None
        return Cost(1, (lambda variables, _segments: self._walk_type(below, variables.get(variable, otherwise)),))

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


def _times(page: Evaluate, each: Cost) -> Evaluate:
    return lambda variables, segments: page(variables, segments) * each.at(variables, segments)


def _length_of(given: Any) -> int | None:
    if isinstance(given, list):
        return len(given)
    return None if given is None else 1
