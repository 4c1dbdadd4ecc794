"""`Audience.members`: who is in a segment, for private keys.

Owns the types and their resolvers. Reads one page of the index, bounded, in one short transaction; whoever executes the
query has waited before for the index to have all that was acknowledged (`GraphQLEngine.reads_members` says when).
"""

from typing import Any, Final, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLArgument,
    GraphQLField,
    GraphQLFloat,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLString,
    Visitor,
    VisitorAction,
    visit,
)

from segmentd.domain.membership import ts_ms_of
from segmentd.domain.pagecursors import MEMBER, cursor_of, key_of
from segmentd.domain.segments import Segment
from segmentd.graphql.context import ReadContext
from segmentd.graphql.errors import ReadError

FIRST_DEFAULT: Final = 100
FIELD: Final = "members"
CONNECTION_TYPE: Final = "MemberConnection"

Info = GraphQLResolveInfo[ReadContext]


class Member(NamedTuple):
    """Both the edge and its node."""

    cursor: str
    identifier: str
    value: str
    qualified_at: float
    """Seconds since the epoch."""
    source: str


class MemberPage(NamedTuple):
    """Both the connection and its pageInfo."""

    items: list[Member]
    start: int
    """Above 0: something was before."""
    total: int
    has_next: bool

    @property
    def cursors(self) -> tuple[str | None, str | None]:
        """Of the first and the last member."""
        return (self.items[0].cursor, self.items[-1].cursor) if self.items else (None, None)


def members(segment: Segment, info: Info, first: int | None = None, after: str | None = None) -> MemberPage:
    """Raises ReadError: FORBIDDEN, INVALID_ARGUMENT, INVALID_CURSOR."""
    context = info.context
    reader = context.members
    if context.right != "private" or reader is None:
        raise ReadError("FORBIDDEN", "Members of an audience are shown to private keys only.")
    size = min(FIRST_DEFAULT, context.members_page_max) if first is None else first
    if not 0 <= size <= context.members_page_max:
        raise ReadError("INVALID_ARGUMENT", f"`first` must be from 0 to {context.members_page_max}.")
    try:
        start = b"" if after is None else key_of(MEMBER, after)
    except ValueError as error:
        raise ReadError("INVALID_CURSOR", f"`after` {error}.") from None
    audience = segment.definition.external_audience_id
    page = reader.members(audience, start, size)
    sources = reader.qualifying(audience)
    items = []
    for key, v in page.members:
        name, value = context.schema.parse_key(key)
        source = f"import:{sources[v]}" if v in sources else "event"
        items.append(Member(cursor_of(MEMBER, key), name, value, ts_ms_of(v) / 1000, source))
    return MemberPage(items, 0 if after is None else 1, page.total, page.has_more)


def members_field(page_info: GraphQLObjectType) -> GraphQLField:
    """The field of `Audience`. page_info: the type of `pageInfo`."""
    string = GraphQLNonNull(GraphQLString)
    node = GraphQLObjectType(
        "Member",
        {
            "identifier": _field(string, "Name of the identifier.", lambda member: member.identifier),
            "value": _field(string, "Its value.", lambda member: member.value),
            "qualified_at": _field(
                GraphQLNonNull(GraphQLFloat),
                "Time (`ts`) of the qualification, seconds since the epoch.",
                lambda member: member.qualified_at,
            ),
            "source": _field(string, '"event", or "import:" and the id of the import.', lambda member: member.source),
        },
        description="An identifier that is qualified.",
    )
    edge = GraphQLObjectType(
        "MemberEdge",
        {
            "cursor": _field(string, "Opaque; for `after`. Stays good while members come and go.", lambda m: m.cursor),
            "node": _field(GraphQLNonNull(node), "The member itself.", lambda member: member),
        },
        description="One member in a list.",
    )
    edges = GraphQLNonNull(GraphQLList(GraphQLNonNull(edge)))
    connection = GraphQLObjectType(
        CONNECTION_TYPE,
        {
            "edges": _field(edges, "The members of the page.", lambda page: page.items),
            "pageInfo": _field(GraphQLNonNull(page_info), "Where the page stands in the list.", lambda page: page),
            "totalCount": _field(GraphQLNonNull(GraphQLInt), "How many members there are.", lambda page: page.total),
        },
        description="Members, in a stable order.",
    )
    return GraphQLField(
        connection,
        args={
            "first": GraphQLArgument(GraphQLInt, description=f"At most so many. Null: {FIRST_DEFAULT}."),
            "after": GraphQLArgument(GraphQLString, description="Only what comes after this cursor."),
        },
        description="Who is qualified now; for private keys.",
        resolve=members,
    )


def _field(type_: Any, description: str, read: Any) -> GraphQLField:
    return GraphQLField(type_, description=description, resolve=lambda source, _info: read(source))


def asks_for(ast: DocumentNode, *fields: str) -> bool:
    """Whether a document asks for a field of one of these names anywhere."""
    finder = _Finder(fields)
    visit(ast, finder)
    return finder.found


class _Finder(Visitor):
    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__()
        self._fields = fields
        self.found = False

    def enter_field(self, node: FieldNode, *_: Any) -> VisitorAction:
        if node.name.value in self._fields:
            self.found = True
            return self.BREAK
        return None
