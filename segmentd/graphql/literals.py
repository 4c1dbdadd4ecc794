"""Texts that differ in string literals only, seen as one.

Some clients paste values into the text instead of sending variables. The *outline* of a text is the text without the
insides of its string literals; the *lifted* document has variables where the literals stood, typed by their place in
the schema. So one parsed document serves all texts of one outline.

It is used only where it is surely the same: the text has no comment, block string or escape (then a quotation mark
always begins or ends a literal), there is one operation, and every literal stands where a variable may. A lifted
document that is valid is valid for any literals, because each literal has a variable of its own: what depends on two
literals being equal (fields of one response name) is invalid then, and is not shared.
"""

import re
from dataclasses import replace
from typing import Any, Final, NamedTuple, cast

from graphql import (
    SKIP,
    DocumentNode,
    GraphQLSchema,
    GraphQLString,
    NameNode,
    OperationDefinitionNode,
    StringValueNode,
    TypeInfo,
    TypeInfoVisitor,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    VisitorAction,
    get_named_type,
    parse_type,
    visit,
)

# Not a character; the lexer refuses it.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
LITERAL_PREFIX: Final = "literal_"


class Outline(NamedTuple):
    """A text split at its literals."""

    key: str
    literals: list[str]


def outline_of(text: str) -> Outline | None:
    """None where the text has no literals, or is not simple enough to be split without parsing it."""
    pieces = text.split('"')
    if len(pieces) < 3 or not len(pieces) & 1:
        return None
    if "#" in text or "\\" in text or '"""' in text or not (text.isascii() or _SURROGATE.search(text) is None):
        return None
    literals = pieces[1::2]
    if any("\n" in literal or "\r" in literal for literal in literals):
        return None
    return Outline('"'.join(pieces[::2]), literals)


def literal_names(count: int) -> tuple[str, ...]:
    """The variables of a lifted document with so many literals, in the order of the text."""
    return tuple(f"{LITERAL_PREFIX}{number}" for number in range(count))


def lift(schema: GraphQLSchema, document: DocumentNode, literals: list[str]) -> DocumentNode | None:
    """The lifted document, not yet validated; None where a literal cannot be lifted.

    document: parsed. literals: as `outline_of` found them in its text. Only literals where the schema has a String are
    lifted, so that any literal fits where a variable does.
    """
    if len(document.definitions) != 1 or not isinstance(document.definitions[0], OperationDefinitionNode):
        return None
    lifter = _Lifter(TypeInfo(schema))
    lifted: DocumentNode = visit(document, TypeInfoVisitor(lifter.type_info, lifter))
    if lifter.literals != literals or lifter.clash:
        return None
    operation = cast("OperationDefinitionNode", lifted.definitions[0])
    definitions = (*(operation.variable_definitions or ()), *lifter.definitions)
    return replace(lifted, definitions=(replace(operation, variable_definitions=definitions),))


class _Lifter(Visitor):
    """Replaces literals, in the order of the text."""

    def __init__(self, type_info: TypeInfo) -> None:
        super().__init__()
        self.type_info = type_info
        self.literals: list[str] = []
        self.definitions: list[VariableDefinitionNode] = []
        self.clash = False

    def enter_variable_definition(self, node: VariableDefinitionNode, *_: Any) -> VisitorAction:
        """Defaults and directives of variables must be constant: literals there stay, and the text is not shared."""
        self.clash |= node.variable.name.value.startswith(LITERAL_PREFIX)
        return SKIP

    def enter_string_value(self, node: StringValueNode, *_: Any) -> VariableNode | None:
        type_ = self.type_info.get_input_type()
        if type_ is None or get_named_type(type_) is not GraphQLString:
            return None
        name = NameNode(value=f"{LITERAL_PREFIX}{len(self.literals)}")
        self.literals.append(node.value)
        variable = VariableNode(name=name)
        self.definitions.append(
            VariableDefinitionNode(variable=variable, type=parse_type(str(type_), no_location=True))
        )
        return variable
