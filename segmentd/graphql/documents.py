"""Documents that were parsed, validated, costed and planned, kept for the next request with the same text.

Texts that differ in string literals only share one document where that is surely the same (`literals`). What has a plan
is kept without its syntax tree: what is asked of the tree later is found out beforehand, and where the executor has to
answer after all, it parses the text again. Other trees are kept without locations, which halves their memory; whoever
needs them (an error) parses the text again too.

Why so little is kept: a full garbage collection looks at every object that can be part of a circle, and the loop stands
still meanwhile. A tree of 27 fields has hundreds of those. A document with a plan has none.

Invariants:
1. Only valid documents are kept, so bad ones cannot drive out good ones.
2. At most `entries_max` documents and `entries_max * TOKENS_A_DOCUMENT_MEAN` tokens are kept; the least recently used
   goes first.
3. The trees that are kept have at most `nodes_max` nodes together. The document with a tree that was used least
   recently goes first, and no document without one goes for it.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLSchema,
    GraphQLSyntaxError,
    Node,
    NoFragmentCyclesRule,
    parse,
    validate,
)
from msgspec import Struct

from segmentd.graphql.cost import compile_costs
from segmentd.graphql.errors import LimitError, limit_refused, syntax_refused, validation_refused
from segmentd.graphql.limits import DocumentLimits, check_bytes, check_structure, scan
from segmentd.graphql.literals import lift, literal_names, outline_of
from segmentd.graphql.members import FIELD, asks_for
from segmentd.graphql.plans import compile_plan
from segmentd.graphql.pricing import Cost
from segmentd.graphql.writers import Plan

# A kept token takes some 100 bytes with a plan and 200 in a tree (measured); the SDKs' queries have some 40.
TOKENS_A_DOCUMENT_MEAN: Final = 128
# Enough for a person to work with; a bad document may have thousands.
ERRORS_LISTED_MAX: Final = 20
# Outlines never begin with NUL, because no valid document does, so the two kinds of keys cannot meet.
_EXACT: Final = "\0"
SIZE: Final = "size"
"""The field that counts the members of an audience."""


class Document(Struct, frozen=True, gc=False):
    """What is known about a text (or all texts of one outline). Nothing of it refers to itself in a circle."""

    costs: dict[str | None, Cost]
    tokens: int
    literal_names: tuple[str, ...]
    """The variables in the place of literals, in the order of the text; empty if the document is not shared."""
    counts: bool
    """Whether it asks for the size of an audience anywhere."""
    lists: bool
    """Whether it asks for the members of an audience anywhere."""
    plan: Plan | None
    tree: DocumentNode | None
    """None if there is a plan. Without locations; with variables in the place of literals if it is shared."""
    nodes: int
    """Of the tree that is kept."""

    @property
    def shared(self) -> bool:
        """Whether it serves all texts of its outline."""
        return bool(self.literal_names)


class Prepared(NamedTuple):
    """A document for one text."""

    document: Document
    literals: list[str]
    """The values of the lifted variables; empty if the document is not shared."""


class DocumentCache:
    """`prepare` a text; remembers what it prepared."""

    def __init__(
        self, schema: GraphQLSchema, limits: DocumentLimits, entries_max: int, nodes_max: int, *, plans: bool = True
    ) -> None:
        """plans: whether documents get plans. The other two: see invariants 2 and 3."""
        self._schema = schema
        self._plans = plans
        self._limits = limits
        self._entries_max = entries_max
        self._tokens_max = entries_max * TOKENS_A_DOCUMENT_MEAN
        self._nodes_max = nodes_max
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self._trees: OrderedDict[str, None] = OrderedDict()
        """The keys of those with a tree, in the same order."""
        self._tokens = self._nodes = 0

    def __len__(self) -> int:
        return len(self._documents)

    def prepare(self, text: str) -> Prepared:
        """The valid document of a text. Raises RequestRefused."""
        try:
            check_bytes(text, self._limits)
        except LimitError as error:
            raise limit_refused(error) from None
        outline = outline_of(text)
        if outline is not None and (document := self._kept(outline.key)):
            return Prepared(document, outline.literals)
        key = _EXACT + text
        if document := self._kept(key):
            return Prepared(document, [])
        document = self._compile(text, outline.literals if outline else [])
        if document.shared and outline is not None:
            self._keep(outline.key, document)
            return Prepared(document, outline.literals)
        self._keep(key, document)
        return Prepared(document, [])

    def _kept(self, key: str) -> Document | None:
        document = self._documents.get(key)
        if document is not None:
            self._documents.move_to_end(key)
            if document.tree is not None:
                self._trees.move_to_end(key)
        return document

    def _keep(self, key: str, document: Document) -> None:
        if document.tokens > self._tokens_max or document.nodes > self._nodes_max:
            return
        self._documents[key] = document
        self._tokens += document.tokens
        if document.tree is not None:
            self._trees[key] = None
            self._nodes += document.nodes
        while self._nodes > self._nodes_max:
            self._drop(next(iter(self._trees)))
        while len(self._documents) > self._entries_max or self._tokens > self._tokens_max:
            self._drop(next(iter(self._documents)))

    def _drop(self, key: str) -> None:
        document = self._documents.pop(key)
        self._tokens -= document.tokens
        if document.tree is not None:
            del self._trees[key]
            self._nodes -= document.nodes

    def _compile(self, text: str, literals: list[str]) -> Document:
        try:
            tokens = scan(text, self._limits)
            ast = parse(text, no_location=True)
            self._refuse_cycles(ast, text)
            check_structure(ast, self._limits)
        except LimitError as error:
            raise limit_refused(error) from None
        except GraphQLSyntaxError as error:
            raise syntax_refused(error) from None
        lifted = lift(self._schema, ast, literals) if literals else None
        if lifted is not None and not validate(self._schema, lifted, max_errors=1):
            # What is valid for any literals is valid for these: the text itself needs no look.
            return self._document(text, lifted, tokens, literal_names(len(literals)))
        if errors := validate(self._schema, parse(text), max_errors=ERRORS_LISTED_MAX):
            raise validation_refused(errors)
        return self._document(text, ast, tokens, ())

    def _document(self, text: str, tree: DocumentNode, tokens: int, names: tuple[str, ...]) -> Document:
        plan = compile_plan(self._schema, tree) if self._plans else None
        return Document(
            compile_costs(self._schema, tree, self._limits.cost_max),
            tokens,
            names,
            # Names cannot be escaped in GraphQL, so nearly all questions end at the first look.
            SIZE in text and asks_for(tree, SIZE),
            FIELD in text and asks_for(tree, FIELD),
            plan,
            None if plan else tree,
            0 if plan else count_nodes(tree),
        )

    def _refuse_cycles(self, ast: DocumentNode, text: str) -> None:
        """Nothing else that looks at fragments is safe before."""
        rules = [NoFragmentCyclesRule]
        if any(isinstance(node, FragmentDefinitionNode) for node in ast.definitions) and validate(
            self._schema, ast, rules, max_errors=1
        ):
            raise validation_refused(validate(self._schema, parse(text), rules, max_errors=ERRORS_LISTED_MAX))


def count_nodes(tree: Node) -> int:
    """Of a syntax tree; each is an object or two for the garbage collector."""
    count = 0
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        count += 1
        for key in node.keys:
            value = getattr(node, key)
            if isinstance(value, Node):
                waiting.append(value)
            elif isinstance(value, tuple):
                waiting += value
    return count
