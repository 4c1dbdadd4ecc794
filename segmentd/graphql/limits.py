"""How much a document may ask of the parser and the validator, checked before they run.

`scan` looks at the text and is linear in it; `check_structure` looks at the parsed document before it is validated,
because comparing fields of one response name is quadratic. What executing costs is `cost`'s business.

Invariants:
1. Up to its first lexical error a text has for `scan` the tokens that it has for graphql-core's lexer (comments, which
   are no tokens to a parser but work to a lexer, are counted too), so the parser never meets more or deeper.
2. Nothing here recurses deeper than `depth_max`.
"""

import re
from typing import Final, NamedTuple

from graphql import DocumentNode, FragmentDefinitionNode, OperationDefinitionNode, SelectionSetNode

from segmentd.graphql.errors import LimitError
from segmentd.graphql.merging import fragments_of, merged_fields, selections_below

# Room for an argument list with an input object and lists inside the deepest selection.
ARGUMENT_NESTING_MAX: Final = 8
# Comparing two fields of one response name takes about as long as resolving this many (measured).
PAIR_COST: Final = 5

# Quantifiers are possessive and `"""` never begins an empty string, so that no text is looked at twice.
_TOKEN: Final = re.compile(
    r"""
    (?P<ignored>[\ \t\r\n,\ufeff]++)
    |(?P<open>[({\[])
    |(?P<close>[)}\]])
    |(?P<colon>:)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<comment>\#[^\r\n]*+)
    |(?P<text>\"""(?:[^"\\]++|\\\"""|\\|"(?!""))*+\"""|"(?!"")(?:[^"\\\r\n]++|\\.)*+")
    |(?P<number>-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
    |(?P<spread>\.\.\.)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class DocumentLimits(NamedTuple):
    """The [graphql] settings that bound one document."""

    document_bytes_max: int
    tokens_max: int
    depth_max: int
    aliases_max: int
    cost_max: int


def check_bytes(text: str, limits: DocumentLimits) -> None:
    """Raises LimitError. Lone surrogates count as the three bytes they would have; the lexer refuses them."""
    if len(text if text.isascii() else text.encode("utf-8", "surrogatepass")) > limits.document_bytes_max:
        raise _exceeded("DOCUMENT_TOO_LARGE", "is too large", "document_bytes_max", limits.document_bytes_max, "bytes")


def scan(text: str, limits: DocumentLimits) -> int:
    """The number of tokens. Raises LimitError for too many tokens, too deep nesting, too many aliases."""
    tokens = aliases = depth = parentheses = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "ignored":
            continue
        if kind == "other" and match[0] == '"':
            # A literal without an end: the lexer stops here too. Going on could take quadratic time.
            break
        tokens += 1
        if tokens > limits.tokens_max:
            raise _exceeded("TOO_MANY_TOKENS", "is too long", "tokens_max", limits.tokens_max, "tokens")
        if kind == "open":
            depth += 1
            parentheses += match[0] == "("
            if depth > limits.depth_max + ARGUMENT_NESTING_MAX:
                raise _too_deep(limits)
        elif kind == "close":
            depth -= 1
            parentheses -= match[0] == ")"
        elif kind == "colon" and not parentheses:
            # Outside parentheses a colon can only stand between an alias and its field.
            aliases += 1
            if aliases > limits.aliases_max:
                raise _exceeded(
                    "TOO_MANY_ALIASES", "has too many aliases", "aliases_max", limits.aliases_max, "aliases"
                )
    return tokens


def check_structure(document: DocumentNode, limits: DocumentLimits) -> None:
    """document: parsed, fragments without cycles, otherwise not validated.

    Raises LimitError for fields nested too deeply, fragments included, or too many fields of one response name.
    """
    walk = _Walk(document, limits)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            walk.level([definition.selection_set], 1)


def too_expensive(cost_max: int) -> LimitError:
    """The error for a cost over `cost_max`."""
    return LimitError(
        "QUERY_TOO_EXPENSIVE",
        f"The query would resolve more than {cost_max} fields ([graphql] cost_max). "
        "Ask for fewer fields, or for smaller pages with `first`.",
    )


class _Walk:
    """Goes through the fields as execution would merge them, and counts."""

    def __init__(self, document: DocumentNode, limits: DocumentLimits) -> None:
        self._limits = limits
        self._left = limits.cost_max
        self._fragments = fragments_of(document)

    def level(self, selection_sets: list[SelectionSetNode], depth: int) -> None:
        """selection_sets: what is merged into one object. depth: of their fields, from 1."""
        merged, looked_at = merged_fields(selection_sets, self._fragments)
        self._spend(looked_at)
        for fields in merged.values():
            if depth > self._limits.depth_max:
                raise _too_deep(self._limits)
            self._spend(PAIR_COST * len(fields) * (len(fields) - 1) // 2)
            if below := selections_below(fields):
                self.level(below, depth + 1)

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise too_expensive(self._limits.cost_max)


def _exceeded(code: str, complaint: str, setting: str, limit: int, unit: str) -> LimitError:
    return LimitError(code, f"The document {complaint}: at most {limit} {unit} are allowed ([graphql] {setting}).")


def _too_deep(limits: DocumentLimits) -> LimitError:
    return LimitError(
        "QUERY_TOO_DEEP", f"The document is nested too deeply: at most {limits.depth_max} levels ([graphql] depth_max)."
    )
