"""The way in: a request in, an answer out, whatever the input. Executing is synchronous; over a store that has to be
waited for it is repeated until everything is there (`gathering.py`).

No exception escapes, but the refusal of a store that was waited for. A request that is not executed gets errors alone
(`request_error`); one that is executed has `data`, and `errors` beside it only if there are any.
"""

from typing import Any, Final, Literal

import msgspec
import structlog
from graphql import DocumentNode, ExecutionResult, Executor, execute_sync, parse
from msgspec import Struct

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.graphql.context import MemberReader, MembershipReader, ReadContext, Right, SegmentReader
from segmentd.graphql.documents import SIZE, DocumentCache
from segmentd.graphql.errors import (
    RequestRefused,
    field_error,
    internal_error,
    limit_refused,
    operation_refused,
    variables_refused,
)
from segmentd.graphql.gathering import ROUNDS_MAX, AwaitedReads, Gathering, IncompleteError
from segmentd.graphql.limits import DocumentLimits, too_expensive
from segmentd.graphql.members import FIELD
from segmentd.graphql.schema import build_schema
from segmentd.graphql.writers import Plan, PlanInfo
from segmentd.settings import GraphQLSettings

_log = structlog.get_logger(__name__)

_encode: Final = msgspec.json.Encoder().encode
_NO_VARIABLES: Final[dict[str, Any]] = {}


class GraphQLRequest(Struct, frozen=True, kw_only=True, rename="camel"):
    """A well-formed request, as it comes in JSON; unknown members are ignored, as the specification says."""

    query: str
    operation_name: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    """Accepted and not looked at."""


class GraphQLAnswer(Struct, frozen=True):
    """An answer, ready to be sent."""

    kind: Literal["success", "request_error", "field_errors"]
    """request_error: not executed, there is no `data`. field_errors: executed, with errors beside the data."""
    encoded: bytes
    """JSON, UTF-8."""
    planned: bool = False
    """Whether a plan wrote it."""

    @property
    def body(self) -> dict[str, Any]:
        """`encoded`, decoded again."""
        decoded: dict[str, Any] = msgspec.json.decode(self.encoded)
        return decoded


class GraphQLEngine:
    """Executes queries over the published state; call it on the loop's thread."""

    def __init__(
        self,
        store: MembershipReader | None,
        catalog: SegmentReader,
        schema: IdentifierSchema,
        settings: GraphQLSettings,
        *,
        members: MemberReader | None = None,
        members_page_max: int = 0,
    ) -> None:
        """store: None where it has to be waited for; then there is `execute_awaited` alone.
        members: None shows no members to anybody. members_page_max: at most so many on a page.

        Raises ValueError for identifier names that cannot be GraphQL arguments.
        """
        self.schema = build_schema(schema)
        self._catalog = catalog
        self._identifiers = schema
        self._members_page_max = members_page_max
        self._cost_max = settings.cost_max
        rights: tuple[Right, ...] = () if store is None else ("public", "private")
        self._infos = {right: self._info(store, right, members) for right in rights if store is not None}
        self.answered_by_plans = 0
        """Requests whose answer a plan wrote; all others went to the executor or were refused."""
        self._limits = DocumentLimits(
            document_bytes_max=settings.document_bytes_max,
            tokens_max=settings.tokens_max,
            depth_max=settings.depth_max,
            aliases_max=settings.aliases_max,
            cost_max=settings.cost_max,
        )
        self._documents = DocumentCache(
            self.schema,
            self._limits,
            settings.document_cache_entries_max,
            settings.document_cache_nodes_max,
            plans=settings.plans,
        )

    def _info(self, store: MembershipReader, right: Right, members: MemberReader | None) -> PlanInfo:
        return PlanInfo(ReadContext(store, self._catalog, self._identifiers, right, members, self._members_page_max))

    def reads_members(self, request: GraphQLRequest, *, right: Right) -> bool:
        """Whether the answer will show members, so that the index must be waited for first."""
        # Nearly all requests end at the first look.
        if FIELD not in request.query or right != "private":
            return False
        try:
            return self._documents.prepare(request.query).document.lists
        except RequestRefused:
            return False

    def follower_may_answer(self, request: GraphQLRequest) -> bool:
        """Whether a process that neither counts nor lists members can answer; what is refused, any process refuses."""
        text = request.query
        # Names cannot be escaped in GraphQL, so nearly all requests end at the first look.
        if SIZE not in text and FIELD not in text:
            return True
        try:
            document, _ = self._documents.prepare(text)
        except RequestRefused:
            return True
        return not (document.counts or document.lists)

    def is_planned(self, request: GraphQLRequest) -> bool | None:
        """Whether a plan answers such a request; None where its document is refused."""
        try:
            document, _ = self._documents.prepare(request.query)
        except RequestRefused:
            return None
        return document.plan is not None and document.costs.get(request.operation_name) is not None

    def execute(self, request: GraphQLRequest, *, right: Right) -> GraphQLAnswer:
        """The answer to one request, from what is in this process. right: of the key that asks."""
        try:
            answer = self._execute(request, self._infos[right])
        except RequestRefused as refusal:
            return _answer("request_error", {"errors": refusal.errors})
        except Exception:  # noqa: BLE001  # a client must get an answer; the log gets the traceback
            return _failed()
        self.answered_by_plans += answer.planned
        return answer

    async def execute_awaited(self, request: GraphQLRequest, *, right: Right, reads: AwaitedReads) -> GraphQLAnswer:
        """As `execute`, from what has to be waited for. Raises StoreUnavailable, Overloaded."""
        gathering = Gathering(reads)
        info = self._info(gathering, right, None if reads.imports is None else gathering)
        for _ in range(ROUNDS_MAX):
            answer = self._round(request, info, gathering)
            if answer is not None:
                self.answered_by_plans += answer.planned
                return answer
            await gathering.fetch()
        raise reads.endless()

    def _round(self, request: GraphQLRequest, info: PlanInfo, gathering: Gathering) -> GraphQLAnswer | None:
        """The answer; None where something is missing for it."""
        try:
            answer = self._execute(request, info, gathering)
        except IncompleteError:
            return None
        except RequestRefused as refusal:
            # None of these reasons is anything that was read.
            return _answer("request_error", {"errors": refusal.errors})
        except Exception:  # noqa: BLE001  # a client must get an answer; the log gets the traceback
            return _failed()
        return None if gathering.wanted else answer

    def _execute(self, request: GraphQLRequest, info: PlanInfo, gathering: Gathering | None = None) -> GraphQLAnswer:
        """gathering: what `info` reads from, where that may be incomplete. Raises RequestRefused, IncompleteError."""
        document, literals = self._documents.prepare(request.query)
        variables = request.variables or _NO_VARIABLES
        if literals:
            variables = {**variables, **dict(zip(document.literal_names, literals, strict=True))}
        cost = document.costs.get(request.operation_name)
        if cost is not None:
            if cost.at(variables, len(self._catalog.segments)) > self._cost_max:
                raise limit_refused(too_expensive(self._cost_max))
            if document.plan is not None and (encoded := _planned(document.plan, info, variables)) is not None:
                return GraphQLAnswer("success", encoded, planned=True)
        if document.tree is not None:
            result = self._run(document.tree, variables, request, info.context)
            if not result.errors:
                return _answer("success", {"data": result.data})
            if gathering is not None and gathering.wanted:
                raise IncompleteError
        return self._execute_text(request, info.context, gathering, known=cost is not None)

    def _execute_text(
        self, request: GraphQLRequest, context: ReadContext, gathering: Gathering | None, *, known: bool
    ) -> GraphQLAnswer:
        """The answer of a text as the client wrote it: with locations and the client's own names, for what goes wrong.

        Its document is valid, which is not looked at again. known: whether the operation was found in it.
        Raises RequestRefused, IncompleteError.
        """
        result = self._run(_tree_of(request, gathering), request.variables, request, context)
        errors = result.errors
        if not errors:
            return _answer("success", {"data": result.data})
        if gathering is not None and gathering.wanted:
            raise IncompleteError
        if not known:
            raise operation_refused(errors)
        if result.data is None and not any(error.path for error in errors):
            raise variables_refused(errors)
        return _answer("field_errors", {"errors": [field_error(error) for error in errors], "data": result.data})

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


def _tree_of(request: GraphQLRequest, gathering: Gathering | None) -> DocumentNode:
    """With locations; parsed once a request."""
    if gathering is None:
        return parse(request.query)
    if gathering.tree is None:
        gathering.tree = parse(request.query)
    return gathering.tree


def _answer(kind: Literal["success", "request_error", "field_errors"], body: dict[str, Any]) -> GraphQLAnswer:
    return GraphQLAnswer(kind, _encode(body))


def _planned(plan: Plan, info: PlanInfo, variables: dict[str, Any]) -> bytes | None:
    """What the plan writes; None: the executor shall answer."""
    try:
        return plan.write(info, variables)
    except Exception:  # noqa: BLE001  # whatever it is, the executor meets it again and tells client and log
        return None


def _failed() -> GraphQLAnswer:
    """Call it while the exception is handled."""
    _log.exception("graphql_engine_failed")
    return _answer("field_errors", {"errors": [internal_error()], "data": None})
