"""The way in: a request in, an answer out, synchronously, whatever the input.

No exception escapes. A request that is not executed gets errors alone (`request_error`); one that is executed has
`data`, and `errors` beside it only if there are any.
"""

from typing import Any, Literal

import structlog
from graphql import DocumentNode, ExecutionResult, Executor, execute_sync, parse
from msgspec import Struct

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.graphql.context import MembershipReader, ReadContext, Right, SegmentReader
from segmentd.graphql.documents import DocumentCache
from segmentd.graphql.errors import (
    RequestRefused,
    field_error,
    internal_error,
    limit_refused,
    operation_refused,
    variables_refused,
)
from segmentd.graphql.limits import DocumentLimits, too_expensive
from segmentd.graphql.literals import variables_with
from segmentd.graphql.schema import build_schema
from segmentd.settings import GraphQLSettings

_log = structlog.get_logger(__name__)


class GraphQLRequest(Struct, frozen=True, kw_only=True):
    """A well-formed request: the HTTP side has checked the types."""

    query: str
    operation_name: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    """Accepted and not looked at."""


class GraphQLAnswer(Struct, frozen=True):
    """An answer to be written as JSON."""

    kind: Literal["success", "request_error", "field_errors"]
    """request_error: not executed, `body` has no `data`. field_errors: executed, with errors beside the data."""
    body: dict[str, Any]


class GraphQLEngine:
    """Executes queries over the published state; call it on the loop's thread."""

    def __init__(
        self,
        store: MembershipReader,
        catalog: SegmentReader,
        schema: IdentifierSchema,
        settings: GraphQLSettings,
    ) -> None:
        """Raises ValueError for identifier names that cannot be GraphQL arguments."""
        self.schema = build_schema(schema)
        self._catalog = catalog
        self._cost_max = settings.cost_max
        self._contexts = {right: ReadContext(store, catalog, schema, right) for right in ("public", "private")}
        self._limits = DocumentLimits(
            document_bytes_max=settings.document_bytes_max,
            tokens_max=settings.tokens_max,
            depth_max=settings.depth_max,
            aliases_max=settings.aliases_max,
            cost_max=settings.cost_max,
        )
        self._documents = DocumentCache(self.schema, self._limits, settings.document_cache_entries_max)

    def execute(self, request: GraphQLRequest, *, right: Right) -> GraphQLAnswer:
        """The answer to one request. right: of the key that asks."""
        try:
            return self._execute(request, self._contexts[right])
        except RequestRefused as refusal:
            return GraphQLAnswer("request_error", {"errors": refusal.errors})
        except Exception:  # noqa: BLE001  # a client must get an answer; the log gets the traceback
            _log.exception("graphql_engine_failed")
            return GraphQLAnswer("field_errors", {"errors": [internal_error()], "data": None})

    def _execute(self, request: GraphQLRequest, context: ReadContext) -> GraphQLAnswer:
        document, literals = self._documents.prepare(request.query)
        variables = variables_with(request.variables, literals) if literals else request.variables
        cost = document.costs.get(request.operation_name)
        if cost is not None and cost.at(variables or {}, len(self._catalog.segments)) > self._cost_max:
            raise limit_refused(too_expensive(self._cost_max))
        result = self._run(document.ast, variables, request, context)
        if not result.errors:
            return GraphQLAnswer("success", {"data": result.data})
        # Kept documents have no locations, and shared ones not the client's names; tell it from the text itself.
        located = self._run(parse(request.query), request.variables, request, context)
        errors = located.errors or []
        if cost is None:
            raise operation_refused(errors)
        if located.data is None and not any(error.path for error in errors):
            raise variables_refused(errors)
        return GraphQLAnswer("field_errors", {"errors": [field_error(error) for error in errors], "data": located.data})

    def _run(
        self, ast: DocumentNode, variables: dict[str, Any] | None, request: GraphQLRequest, context: ReadContext
    ) -> ExecutionResult:
        return execute_sync(
            self.schema,
            ast,
            context_value=context,
            variable_values=variables,
            operation_name=request.operation_name,
            executor_class=Executor,
        )
