"""The schema in GraphQL's own language, for tools that want a file. Never answers a query."""

from graphql import print_schema

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.graphql.schema import build_schema


def sdl_of(identifiers: IdentifierSchema) -> str:
    """The schema for these identifiers, with its descriptions, ending in a newline."""
    return print_schema(build_schema(identifiers)) + "\n"
