"""Documents that were parsed, validated and costed, kept for the next request with the same text.

Texts that differ in string literals only share one document where that is surely the same (`literals`). Documents are
kept without locations, which halves their memory; whoever needs them (an error) parses the text again.

Invariants:
1. Only valid documents are kept, so bad ones cannot drive out good ones.
2. At most `entries_max` documents and `entries_max * TOKENS_A_DOCUMENT_MEAN` tokens are kept; the least recently used
   goes first.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoFragmentCyclesRule,
    parse,
    validate,
)

from segmentd.graphql.cost import Cost, compile_costs
from segmentd.graphql.errors import LimitError, limit_refused, syntax_refused, validation_refused
from segmentd.graphql.limits import DocumentLimits, check_bytes, check_structure, scan
from segmentd.graphql.literals import lift, outline_of

# A kept token takes up to a kilobyte (measured); the SDKs' queries have some 40.
TOKENS_A_DOCUMENT_MEAN: Final = 128
# Enough for a person to work with; a bad document may have thousands.
ERRORS_LISTED_MAX: Final = 20
# Outlines never begin with NUL, because no valid document does, so the two kinds of keys cannot meet.
_EXACT: Final = "\0"


class Document(NamedTuple):
    """What is known about a text (or all texts of one outline)."""

    ast: DocumentNode
    """Without locations; with variables in the place of literals if it is shared."""
    costs: dict[str | None, Cost]
    tokens: int
    shared: bool


class Prepared(NamedTuple):
    """A document for one text."""

    document: Document
    literals: list[str]
    """The values of the lifted variables; empty if the document is not shared."""


class DocumentCache:
    """`prepare` a text; remembers what it prepared."""

    def __init__(self, schema: GraphQLSchema, limits: DocumentLimits, entries_max: int) -> None:
        self._schema = schema
        self._limits = limits
        self._entries_max = entries_max
        self._tokens_max = entries_max * TOKENS_A_DOCUMENT_MEAN
        self._documents: OrderedDict[str, Document] = OrderedDict()
        self._tokens = 0

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
        return document

    def _keep(self, key: str, document: Document) -> None:
        if document.tokens > self._tokens_max:
            return
        self._documents[key] = document
        self._tokens += document.tokens
        while len(self._documents) > self._entries_max or self._tokens > self._tokens_max:
            _, oldest = self._documents.popitem(last=False)
            self._tokens -= oldest.tokens

    def _compile(self, text: str, literals: list[str]) -> Document:
        try:
            tokens = scan(text, self._limits)
            ast = parse(text, no_location=True)
            self._check(ast, text)
        except LimitError as error:
            raise limit_refused(error) from None
        except GraphQLSyntaxError as error:
            raise syntax_refused(error) from None
        lifted = lift(self._schema, ast, literals) if literals else None
        shared = lifted is not None and not validate(self._schema, lifted, max_errors=1)
        kept = lifted if shared and lifted is not None else ast
        return Document(kept, compile_costs(self._schema, kept, self._limits.cost_max), tokens, shared)

    def _check(self, ast: DocumentNode, text: str) -> None:
        """Cheap checks first: each makes the next one safe."""
        if validate(self._schema, ast, [NoFragmentCyclesRule]):
            raise validation_refused(self._located_errors(text, only_cycles=True))
        check_structure(ast, self._limits)
        if validate(self._schema, ast, max_errors=1):
            raise validation_refused(self._located_errors(text, only_cycles=False))

    def _located_errors(self, text: str, *, only_cycles: bool) -> list[GraphQLError]:
        rules = [NoFragmentCyclesRule] if only_cycles else None
        return validate(self._schema, parse(text), rules, max_errors=ERRORS_LISTED_MAX)
