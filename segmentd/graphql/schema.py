"""The GraphQL schema, built from the configured identifiers.

Types, names and descriptions only; what fields answer stands in `resolvers`. Arguments that the SDKs fill from
variables are nullable, because their queries declare nullable variables.
"""

from collections.abc import Callable
from typing import Any, Final

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    assert_name,
    assert_valid_schema,
)

from segmentd.domain.identifiers import IdentifierKind, IdentifierSchema
from segmentd.domain.segments import Segment
from segmentd.graphql import resolvers
from segmentd.graphql.cursors import cursor_of
from segmentd.graphql.members import FIELD, members_field

CONNECTION_TYPES: Final = frozenset({"AudienceConnection", "CustomerAudienceConnection"})
"""Names of the types whose `edges` are as many as the page has."""

STRING_MAP: Final = GraphQLScalarType(
    "StringMap",
    description="A JSON object that maps strings to strings.",
)

PAGE_INFO: Final = GraphQLObjectType(
    "PageInfo",
    {
        "hasNextPage": GraphQLField(
            GraphQLNonNull(GraphQLBoolean),
            description="Whether the list goes on behind this page.",
            resolve=lambda page, _info: page.has_next,
        ),
        "hasPreviousPage": GraphQLField(
            GraphQLNonNull(GraphQLBoolean),
            description="Whether the list has something before this page.",
            resolve=lambda page, _info: page.start > 0,
        ),
        "startCursor": GraphQLField(
            GraphQLString,
            description="The cursor of the first edge; null on an empty page.",
            resolve=lambda page, _info: resolvers.page_cursors(page)[0],
        ),
        "endCursor": GraphQLField(
            GraphQLString,
            description="The cursor of the last edge; null on an empty page.",
            resolve=lambda page, _info: resolvers.page_cursors(page)[1],
        ),
    },
    description="Where a page stands in its list (Relay cursor connections).",
)

AUDIENCE_FILTER: Final = GraphQLInputObjectType(
    "AudienceFilter",
    {
        "name_contains": GraphQLInputField(
            GraphQLString, description="A part of the name, compared in lower case. Null or empty: any."
        ),
        "name_prefix": GraphQLInputField(
            GraphQLString, description="What the name begins with, compared in lower case. Null or empty: any."
        ),
        "external_audience_id": GraphQLInputField(
            GraphQLString,
            description="The id of the external audience, compared exactly. Null: any.",
        ),
    },
    description="Which segments to list; all given conditions must hold.",
)


def build_schema(identifiers: IdentifierSchema) -> GraphQLSchema:
    """The schema for these identifiers.

    Raises ValueError where an identifier's name cannot be an argument, or two of them would share one.
    """
    customer = GraphQLObjectType(
        "Customer",
        {"audiences": _customer_audiences_field()},
        description="One identifier, and the segments that it is in.",
    )
    audience = _audience_type(
        "Audience",
        lambda segment: segment,
        "A segment: a named view on one external audience.",
        last={FIELD: members_field(PAGE_INFO)},
    )
    query = GraphQLObjectType(
        "Query",
        {
            "customer": _customer_field(customer, identifiers),
            "audiences": GraphQLField(
                _connection("Audience", audience, lambda segment: segment.segment_id, "Segments, by name."),
                args={
                    **_page_arguments(),
                    "filter": GraphQLArgument(AUDIENCE_FILTER, description="Which segments to list; null: all."),
                },
                description="All segments, by name.",
                resolve=resolvers.audiences,
            ),
            "audience": GraphQLField(
                audience,
                args={
                    "name": GraphQLArgument(
                        GraphQLNonNull(GraphQLString), description="The segment's id, compared in lower case."
                    )
                },
                description="One segment; null if there is none of that name.",
                resolve=resolvers.audience,
            ),
        },
        description="What can be read.",
    )
    schema = GraphQLSchema(query, description="Segments, their sizes, and who is in them.")
    assert_valid_schema(schema)
    return schema


def _customer_field(customer: GraphQLObjectType, identifiers: IdentifierSchema) -> GraphQLField:
    arguments = _identifier_arguments(identifiers)
    return GraphQLField(
        customer,
        args={
            name: GraphQLArgument(
                GraphQLString,
                description=f"The value of the identifier {kind.name} ({kind.confidence.value} confidence).",
            )
            for name, kind in arguments.items()
        },
        description="The customer with exactly one identifier; null values count as not given. "
        "A value that was never seen, or can never be seen, is a customer without audiences.",
        resolve=resolvers.customer_resolver(arguments),
    )


def _identifier_arguments(identifiers: IdentifierSchema) -> dict[str, IdentifierKind]:
    arguments: dict[str, IdentifierKind] = {}
    for kind in identifiers.kinds.values():
        for name in (kind.name, f"_{kind.name}"):
            if name in arguments:
                other = arguments[name].name
                raise ValueError(f"identifiers {other!r} and {kind.name!r} would share the GraphQL argument {name!r}")
            arguments[name] = kind
        if kind.name.startswith("_"):
            raise ValueError(f"identifier {kind.name!r}: a name that begins with an underscore cannot be queried")
        try:
            assert_name(kind.name)
        except GraphQLError as error:
            raise ValueError(f"identifier {kind.name!r} cannot be a GraphQL argument: {error}") from None
    return arguments


def _customer_audiences_field() -> GraphQLField:
    node = _audience_type(
        "CustomerAudience", lambda found: found.segment, "A segment as one customer sees it.", _decision_fields()
    )
    return GraphQLField(
        _connection("CustomerAudience", node, lambda found: found.segment.segment_id, "Segments of one customer."),
        args={
            "subset": GraphQLArgument(
                GraphQLList(GraphQLString),
                description="Names of the segments to ask about, in the order of the answer, compared in lower case; "
                "duplicates, unknown names and nulls are ignored. Null: all segments, by name.",
            ),
            "states": GraphQLArgument(
                GraphQLList(GraphQLString),
                description='Which states to show: "qualified", "not_qualified" or both. Null: "qualified".',
            ),
            **_page_arguments(),
        },
        description="The segments in which the customer is qualified.",
        resolve=resolvers.customer_audiences,
    )


def _decision_fields() -> dict[str, GraphQLField]:
    return {
        "state": GraphQLField(
            GraphQLNonNull(GraphQLString),
            description='"qualified" or "not_qualified".',
            resolve=lambda found, _info: found.state,
        ),
        "qualified_at": GraphQLField(
            GraphQLFloat,
            description="Time (`ts`) of the latest decision where it is a qualification, seconds since the epoch.",
            resolve=resolvers.qualified_at,
        ),
        "updated_at": GraphQLField(
            GraphQLFloat,
            description="Time (`ts`) of the latest decision, seconds since the epoch; null if there was none.",
            resolve=resolvers.updated_at,
        ),
    }


def _audience_type(
    type_name: str,
    segment: Callable[[Any], Segment],
    description: str,
    more: dict[str, GraphQLField] | None = None,
    last: dict[str, GraphQLField] | None = None,
) -> GraphQLObjectType:
    """A node type. segment: node → its segment. more, last: fields after the name, and at the end."""

    def field(type_: GraphQLOutputType, text: str, read: Callable[[Segment], Any]) -> GraphQLField:
        return GraphQLField(type_, description=text, resolve=lambda node, _info: read(segment(node)))

    string = GraphQLNonNull(GraphQLString)
    fields = {
        "name": field(string, "The segment's id.", lambda found: found.segment_id),
        **(more or {}),
        "revision": field(
            GraphQLNonNull(GraphQLInt), "Rises with every change of the segment.", lambda found: found.revision
        ),
        "description": field(string, "What the segment is for.", lambda found: found.definition.description),
        "is_ready": field(
            GraphQLNonNull(GraphQLBoolean), "Always true: external audiences are ready at once.", lambda _found: True
        ),
        "size": GraphQLField(
            GraphQLInt,
            description="The exact number of members that are qualified now.",
            resolve=lambda node, info: resolvers.segment_size(segment(node), info),
        ),
        "metadata": field(
            GraphQLNonNull(STRING_MAP), "Free strings kept with the segment.", lambda found: found.definition.metadata
        ),
        "external_audience_id": field(
            string, "The external audience behind the segment.", lambda found: found.definition.external_audience_id
        ),
        **(last or {}),
    }
    return GraphQLObjectType(type_name, fields, description=description)


def _connection(
    prefix: str, node: GraphQLObjectType, name: Callable[[Any], str], description: str
) -> GraphQLObjectType:
    edge = GraphQLObjectType(
        f"{prefix}Edge",
        {
            "cursor": GraphQLField(
                GraphQLNonNull(GraphQLString),
                description="Opaque; for `after` and `before`. Stays good while segments come and go.",
                resolve=lambda item, _info: cursor_of(name(item)),
            ),
            "node": GraphQLField(
                GraphQLNonNull(node), description="The item itself.", resolve=lambda item, _info: item
            ),
        },
        description=f"One {node.name} in a list.",
    )
    return GraphQLObjectType(
        f"{prefix}Connection",
        {
            "edges": GraphQLField(
                GraphQLNonNull(GraphQLList(GraphQLNonNull(edge))),
                description="The items of the page.",
                resolve=lambda connection, _info: connection.items,
            ),
            "pageInfo": GraphQLField(
                GraphQLNonNull(PAGE_INFO),
                description="Where the page stands in the list.",
                resolve=lambda connection, _info: connection,
            ),
            "totalCount": GraphQLField(
                GraphQLNonNull(GraphQLInt),
                description="How many items the whole list has.",
                resolve=lambda connection, _info: connection.total,
            ),
        },
        description=description,
    )


def _page_arguments() -> dict[str, GraphQLArgument]:
    return {
        "first": GraphQLArgument(GraphQLInt, description="At most so many, from the beginning. Null: no bound."),
        "after": GraphQLArgument(GraphQLString, description="Only what comes after this cursor."),
        "last": GraphQLArgument(
            GraphQLInt, description="At most so many, from the end (of the first `first`, if both are given)."
        ),
        "before": GraphQLArgument(GraphQLString, description="Only what comes before this cursor."),
    }
