"""Documents that were parsed, validated, costed and planned, kept for the next request with the same text.

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
    FragmentDefinitionNode,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoFragmentCyclesRule,
    parse,
    validate,
)

from segmentd.graphql.cost import Cost, compile_costs
from segmentd.graphql.errors import LimitError, limit_refused, syntax_refused, validation_refused
from segmentd.graphql.limits import DocumentLimits, check_bytes, check_structure, scan
from segmentd.graphql.literals import lift, literal_names, outline_of
from segmentd.graphql.plans import Plan, compile_plan

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
    literal_names: tuple[str, ...]
    """The variables in the place of literals, in the order of the text; empty if the document is not shared."""
    plan: Plan | None

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

    def __init__(self, schema: GraphQLSchema, limits: DocumentLimits, entries_max: int, *, plans: bool = True) -> None:
        """plans: whether documents get plans."""
        self._schema = schema
        self._plans = plans
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
            self._refuse_cycles(ast, text)
            check_structure(ast, self._limits)
        except LimitError as error:
            raise limit_refused(error) from None
        except GraphQLSyntaxError as error:
            raise syntax_refused(error) from None
        lifted = lift(self._schema, ast, literals) if literals else None
        if lifted is not None and not validate(self._schema, lifted, max_errors=1):
            # What is valid for any literals is valid for these: the text itself needs no look.
            return self._document(lifted, tokens, literal_names(len(literals)))
        if errors := validate(self._schema, parse(text), max_errors=ERRORS_LISTED_MAX):
            raise validation_refused(errors)
        return self._document(ast, tokens, ())

    def _document(self, ast: DocumentNode, tokens: int, names: tuple[str, ...]) -> Document:
        costs = compile_costs(self._schema, ast, self._limits.cost_max)
        plan = compile_plan(self._schema, ast) if self._plans else None
        return Document(ast, costs, tokens, names, plan)

    def _refuse_cycles(self, ast: DocumentNode, text: str) -> None:
        """Nothing else that looks at fragments is safe before."""
        rules = [NoFragmentCyclesRule]
        if any(isinstance(node, FragmentDefinitionNode) for node in ast.definitions) and validate(
            self._schema, ast, rules, max_errors=1
        ):
            raise validation_refused(validate(self._schema, parse(text), rules, max_errors=ERRORS_LISTED_MAX))
