"""Answers: sync functions over the published state.

Never awaits, never changes anything. One execution runs without interruption on the loop's thread, so what it reads in
one place fits what it reads in another.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from graphql import GraphQLFieldResolver, GraphQLResolveInfo
from msgspec import Struct

from segmentd.domain.identifiers import IdentifierKind
from segmentd.domain.membership import is_qualified, ts_ms_of
from segmentd.domain.segments import Segment
from segmentd.graphql.context import ReadContext
from segmentd.graphql.cursors import Page, bounds, cursor_of
from segmentd.graphql.errors import ReadError
from segmentd.graphql.members import MemberPage

Info = GraphQLResolveInfo[ReadContext]

QUALIFIED: Final = "qualified"
NOT_QUALIFIED: Final = "not_qualified"
_BY_DEFAULT: Final = frozenset({QUALIFIED})
_STATES: Final = frozenset({QUALIFIED, NOT_QUALIFIED})


class Customer(Struct, frozen=True, gc=False):
    """One identifier; `key` is None where no passthrough membership can exist for it."""

    key: bytes | None


class Membership(Struct, frozen=True, gc=False):
    """A segment as one customer sees it: both the edge and its node."""

    segment: Segment
    version: int | None
    state: str


class Connection(NamedTuple):
    """One page of a list: both the connection and its pageInfo."""

    items: Sequence[Any]
    """The page."""
    names: Sequence[str]
    """The segment ids of the page."""
    start: int
    total: int

    @property
    def has_next(self) -> bool:
        return self.start + len(self.items) < self.total


def customer_resolver(arguments: Mapping[str, IdentifierKind]) -> GraphQLFieldResolver:
    """The resolver of `Query.customer`. arguments: argument name → kind; `info` and the like are possible names."""

    def customer(_root: object, info: Info, /, **given: str | None) -> Customer:
        present = [(name, value) for name, value in given.items() if value is not None]
        if len(present) != 1:
            raise _wrong_identifiers([name for name, _ in present])
        name, value = present[0]
        kind = arguments[name]
        if not kind.is_high:
            return Customer(None)
        try:
            return Customer(info.context.schema.key(kind, value))
        except ValueError:
            # No event can carry such a value (it is empty, too long, or has control characters), so it is unknown.
            return Customer(None)

    return customer


def _wrong_identifiers(names: list[str]) -> ReadError:
    found = f"found {', '.join(names)}" if names else "found none"
    return ReadError("INVALID_IDENTIFIER_EXCEPTION", f"`customer` takes exactly one identifier; {found}.")


def customer_audiences(
    customer: Customer,
    info: Info,
    subset: list[str | None] | None = None,
    states: list[str | None] | None = None,
    **page: Any,
) -> Connection:
    """`Customer.audiences`: in the order of the subset, else by name."""
    context = info.context
    wanted = _BY_DEFAULT if states is None else _wanted_states(states)
    segments = _all_segments(context) if subset is None else _subset_segments(context, subset)
    memberships = _memberships(context, customer.key, segments, wanted)
    if not page:
        names = [found.segment.segment_id for found in memberships]
        return Connection(memberships, names, 0, len(memberships))
    order = None if subset is None else _order(subset)
    return _customer_page(memberships, order, Page(**page))


def _wanted_states(states: Iterable[str | None]) -> frozenset[str]:
    wanted = frozenset(state for state in states if state is not None)
    if unknown := sorted(wanted - _STATES):
        raise ReadError("INVALID_ARGUMENT", f"`states` may have {QUALIFIED} and {NOT_QUALIFIED}; found {unknown[0]!r}.")
    return wanted


def _all_segments(context: ReadContext) -> list[Segment]:
    segments = context.catalog.segments
    return [segments[name] for name in context.catalog.segment_ids()]


def _folded(name: str) -> str:
    """As segment ids are compared: only ASCII letters are letters there (U+212A would become `k`)."""
    return name.lower() if name.isascii() else name


def _subset_segments(context: ReadContext, subset: Iterable[str | None]) -> list[Segment]:
    known = context.catalog.segments.get
    found: dict[str, Segment] = {}
    for name in subset:
        if name is not None and (segment := known(name) or known(_folded(name))):
            found.setdefault(segment.segment_id, segment)
    return list(found.values())


def _memberships(
    context: ReadContext, key: bytes | None, segments: list[Segment], wanted: frozenset[str]
) -> list[Membership]:
    """Those in one of the wanted states, in the order of `segments`."""
    versions: list[int | None] = [None] * len(segments)
    if key is not None and segments:
        versions = context.store.lookup(key, [segment.definition.external_audience_id for segment in segments])
    found = []
    for segment, version in zip(segments, versions, strict=True):
        state = QUALIFIED if version is not None and is_qualified(version) else NOT_QUALIFIED
        if state in wanted:
            found.append(Membership(segment, version, state))
    return found


def _order(subset: Iterable[str | None]) -> dict[str, int]:
    """Rank of each name of the subset, whether a segment of that name still exists or not."""
    order: dict[str, int] = {}
    for name in subset:
        if name is not None:
            order.setdefault(_folded(name), len(order))
    return order


def _customer_page(memberships: list[Membership], order: dict[str, int] | None, page: Page) -> Connection:
    names = [found.segment.segment_id for found in memberships]
    if order is None:
        start, end = _sorted_bounds(names, page)
    else:
        ranks = [order[name] for name in names]
        start, end = bounds(
            page,
            len(names),
            lambda name: bisect_right(ranks, _rank(order, name, "after")),
            lambda name: bisect_left(ranks, _rank(order, name, "before")),
        )
    return Connection(memberships[start:end], names[start:end], start, len(names))


def _rank(order: dict[str, int], name: str, argument: str) -> int:
    rank = order.get(name)
    if rank is None:
        raise ReadError("INVALID_CURSOR", f"`{argument}` is the cursor of {name!r}, which is not in `subset`.")
    return rank


def _sorted_bounds(names: Sequence[str], page: Page) -> tuple[int, int]:
    return bounds(page, len(names), lambda name: bisect_right(names, name), lambda name: bisect_left(names, name))


def audiences(_root: object, info: Info, filter: dict[str, str | None] | None = None, **page: Any) -> Connection:
    """`Query.audiences`: all segments by name."""
    context = info.context
    names = context.catalog.segment_ids() if filter is None else _filtered(context, filter)
    start, end = _sorted_bounds(names, Page(**page))
    segments = context.catalog.segments
    shown = names[start:end]
    return Connection([segments[name] for name in shown], shown, start, len(names))


def _filtered(context: ReadContext, wanted: Mapping[str, str | None]) -> list[str]:
    prefix = _folded(wanted.get("name_prefix") or "")
    part = _folded(wanted.get("name_contains") or "")
    audience = wanted.get("external_audience_id")
    segments = context.catalog.segments
    return [
        name
        for name in context.catalog.segment_ids()
        if name.startswith(prefix)
        and part in name
        and (audience is None or segments[name].definition.external_audience_id == audience)
    ]


def audience(_root: object, info: Info, name: str) -> Segment | None:
    """`Query.audience`: None if there is no such segment."""
    context = info.context
    return context.catalog.segments.get(_folded(name))


def segment_size(segment: Segment, info: Info) -> int:
    """Members that are qualified now."""
    context = info.context
    return context.store.size(segment.definition.external_audience_id)


def updated_at(found: Membership, _info: Info) -> float | None:
    """Seconds since the epoch of the latest decision; None where nothing was ever decided."""
    return None if found.version is None else ts_ms_of(found.version) / 1000


def qualified_at(found: Membership, info: Info) -> float | None:
    """`updated_at` where the latest decision is a qualification."""
    return updated_at(found, info) if found.state == QUALIFIED else None


def page_cursors(connection: Connection | MemberPage) -> tuple[str | None, str | None]:
    """Cursors of the first and the last item of the page."""
    if isinstance(connection, MemberPage):
        return connection.cursors
    names = connection.names
    return (cursor_of(names[0]), cursor_of(names[-1])) if names else (None, None)
