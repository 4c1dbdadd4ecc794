"""The arguments of a plan: read from raw variables, without coercion.

graphql-core coerces all variables first and refuses the request if one does not fit. A plan takes values that are
plainly of their type and doubts all others, so that the executor decides what they are.

Invariants:
1. What a reader returns is what graphql-core would pass to the resolver.
2. Readers are nothing that the garbage collector has to look through (`plans.py` says why).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLField,
    IntValueNode,
    ListTypeNode,
    ListValueNode,
    NamedTypeNode,
    NonNullTypeNode,
    NullValueNode,
    OperationDefinitionNode,
    StringValueNode,
    TypeNode,
    Undefined,
    ValueNode,
    VariableNode,
    get_nullable_type,
    is_list_type,
)
from msgspec import Struct

Variables = Mapping[str, Any]
Check = Callable[[Any], Any]
"""Passes on a value that is plainly of its type. Raises DoubtError."""

ABSENT: Final = object()
"""The argument is not passed: its variable has no value."""
_INT_MAX: Final = 2**31 - 1


class DoubtError(Exception):
    """Not for a plan: the executor must look at it."""


class Reader(Protocol):
    """Reads one argument."""

    def read(self, variables: Variables) -> Any:
        """variables: raw. The argument's value, or ABSENT. Raises DoubtError."""
        ...


class _Constant(Struct, frozen=True, gc=False):
    value: str | int | None

    def read(self, _variables: Variables) -> Any:
        return self.value


class _ListOf(Struct, frozen=True, gc=False):
    items: tuple[Reader, ...]

    def read(self, variables: Variables) -> list[Any]:
        values = [item.read(variables) for item in self.items]
        if ABSENT in values:
            raise DoubtError
        return values


class _Variable(Struct, frozen=True, gc=False):
    name: str
    required: bool
    check: Check

    def read(self, variables: Variables) -> Any:
        value = variables.get(self.name, ABSENT)
        if value is not None and value is not ABSENT:
            return self.check(value)
        if self.required:
            raise DoubtError
        return value


class Arguments:
    """Compiles the arguments of one operation's fields."""

    def __init__(self, operation: OperationDefinitionNode) -> None:
        """Raises DoubtError where a variable has a default or a type that is not plain."""
        self._variables: dict[str, Reader] = {}
        for node in operation.variable_definitions or ():
            name = node.variable.name.value
            if node.default_value is not None:
                raise DoubtError(name)
            self._variables[name] = _variable(name, node.type)

    def of(self, field: GraphQLField, node: FieldNode) -> tuple[tuple[str, Reader], ...]:
        """(keyword of the resolver, its reader) of each argument that is written at `node`. Raises DoubtError."""
        if any(_has_default(argument) for argument in field.args.values()):
            raise DoubtError(node.name.value)
        listed = []
        for argument in node.arguments or ():
            definition = field.args[argument.name.value]
            name = definition.out_name or argument.name.value
            listed.append((name, self._read(argument.value, is_list=is_list_type(get_nullable_type(definition.type)))))
        return tuple(listed)

    def _read(self, value: ValueNode, *, is_list: bool) -> Reader:
        if isinstance(value, VariableNode):
            return self._variables[value.name.value]
        if isinstance(value, ListValueNode) and is_list:
            return _ListOf(tuple([self._read(item, is_list=False) for item in value.values]))
        constant = _Constant(_constant(value))
        # A single value stands for a list of it.
        return _ListOf((constant,)) if is_list and constant.value is not None else constant


def _has_default(argument: GraphQLArgument) -> bool:
    return argument.default_value is not Undefined or argument.default is not None


def _constant(value: ValueNode) -> str | int | None:
    """The value of a literal that fits its place, as validation has found."""
    if isinstance(value, NullValueNode):
        return None
    if isinstance(value, StringValueNode):
        return value.value
    if isinstance(value, IntValueNode):
        return int(value.value)
    raise DoubtError


def _variable(name: str, type_: TypeNode) -> Reader:
    required = isinstance(type_, NonNullTypeNode)
    return _Variable(name, required, _check(type_.type if isinstance(type_, NonNullTypeNode) else type_))


def _check(type_: TypeNode) -> Check:
    """The check of a (nullable) type."""
    if isinstance(type_, ListTypeNode):
        item = type_.type.type if isinstance(type_.type, NonNullTypeNode) else type_.type
        if isinstance(item, NamedTypeNode) and item.name.value == "String":
            return _texts
    elif isinstance(type_, NamedTypeNode) and type_.name.value in _PLAIN:
        return _PLAIN[type_.name.value]
    raise DoubtError


def _text(value: Any) -> str:
    if value.__class__ is str:
        text: str = value
        return text
    raise DoubtError


def _texts(value: Any) -> list[str]:
    if value.__class__ is str:
        return [value]
    if value.__class__ is not list:
        raise DoubtError
    for item in value:
        if item.__class__ is not str:
            raise DoubtError
    texts: list[str] = value
    return texts


def _number(value: Any) -> int:
    if value.__class__ is int and -_INT_MAX <= value <= _INT_MAX:
        number: int = value
        return number
    raise DoubtError


_PLAIN: Final[dict[str, Check]] = {"String": _text, "Int": _number}
