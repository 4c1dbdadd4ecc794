"""GraphQL over HTTP: `POST` and `GET /v3/graphql`.

Owns the request's form, the media types and the statuses (specification "GraphQL over HTTP"). What a query means is
the engine's.

Invariants:
1. A request that is no well-formed GraphQL request is 400 (415, 406) under both media types.
2. One that is well-formed but not executed (syntax, validation, variables, limits) is 400 as
   `application/graphql-response+json` and 200 as `application/json`; one that is executed is always 200.
3. GET cannot change anything, because the schema has no mutations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from segmentd.domain.refusals import Refusal
from segmentd.graphql.engine import GraphQLAnswer, GraphQLEngine, GraphQLRequest
from segmentd.graphql.gathering import AwaitedReads
from segmentd.graphql.members import FIELD
from segmentd.http import bodies
from segmentd.http.bodies import JSON_TYPE, BodyRules
from segmentd.http.errors import InvalidRequest, NotAcceptable
from segmentd.http.exchange import Answer, Header, Request
from segmentd.http.negotiation import choose
from segmentd.http.routing import AtOnce
from segmentd.http.slowqueries import Described, described
from segmentd.keyfile import Right
from segmentd.settings import LimitsSettings

MEMBERS: Final = FIELD.encode()
RESPONSE_TYPE: Final = "application/graphql-response+json"
# In this order: `*/*` and a missing Accept mean JSON, as old clients expect.
OFFERED: Final = (JSON_TYPE, RESPONSE_TYPE)
_CONTENT_TYPES: Final[dict[str, Header]] = {
    name: ("content-type", f"{name}; charset=utf-8") for name in (JSON_TYPE, RESPONSE_TYPE)
}
_NOT_STORED: Final = ("cache-control", "no-store")  # the answer is about one person, now
_ACCEPTS_REMEMBERED_MAX: Final = 256


_DECODE_BODY: Final = msgspec.json.Decoder(GraphQLRequest)
_DECODE_MAP: Final[msgspec.json.Decoder[dict[str, Any] | None]] = msgspec.json.Decoder(dict[str, Any] | None)


class GraphQLApi:
    """Handlers of `/v3/graphql`."""

    def __init__(
        self,
        engine: GraphQLEngine,
        limits: LimitsSettings,
        settled: Callable[[], Awaitable[None]],
        awaited: AwaitedReads | None = None,
    ) -> None:
        """settled: waits until the index, which members are read from, has all that was acknowledged.

        awaited: of a store that has to be waited for; None: the engine has one that has not.
        """
        self._settled = settled
        self._awaited = awaited
        self._engine = engine
        self._types_by_accept: dict[str | None, str | None] = {}
        self._bodies = BodyRules(
            accepted=(JSON_TYPE,),
            missing=None,
            inflated_bytes_max=limits.graphql_body_bytes_max,
            limit_name="graphql_body_bytes_max",
        )

    async def post(self, request: Request) -> Answer:
        """A query in a JSON body."""
        media_type = self._media_type(request)
        return await self._answer(self._parsed(request), request, media_type)

    @property
    def at_once(self) -> AtOnce | None:
        """What a POST that need not wait is answered with; None where every one waits."""
        return None if self._awaited is not None else AtOnce(self.may_wait, self.post_at_once)

    def may_wait(self, request: Request) -> bool:
        """Whether a POST may ask for members, which are waited for. Right for all who do; a few more are let wait."""
        # What is compressed or has escaped letters may hide the word.
        return MEMBERS in request.body or b"\\u" in request.body or "content-encoding" in request.headers

    def post_at_once(self, request: Request) -> Answer:
        """As `post`, for what need not wait."""
        media_type = self._media_type(request)
        return self.executed(self._parsed(request), request, media_type)

    async def get(self, request: Request) -> Answer:
        """A query in the query string."""
        media_type = self._media_type(request)
        answer = await self._answer(_parse_query(request), request, media_type)
        answer.headers += (_NOT_STORED,)
        return answer

    def described(self, request: Request) -> Described:
        """What the log of slow queries says of a request that was answered."""
        try:
            parsed = _parse_query(request) if request.method == "GET" else self._parsed(request)
        except Refusal:
            return Described("refused")
        return described(parsed, planned=self._engine.is_planned(parsed))

    def _parsed(self, request: Request) -> GraphQLRequest:
        _, body = bodies.read(request, self._bodies)
        return _parse_body(body)

    async def _answer(self, parsed: GraphQLRequest, request: Request, media_type: str) -> Answer:
        right = _right_of(request)
        if self._awaited is not None:
            answer = await self._engine.execute_awaited(parsed, right=right, reads=self._awaited)
            return _sent(answer, media_type)
        if self._engine.reads_members(parsed, right=right):
            await self._settled()
        return self.executed(parsed, request, media_type)

    def executed(self, parsed: GraphQLRequest, request: Request, media_type: str) -> Answer:
        """The answer to a request that was parsed."""
        return _sent(self._engine.execute(parsed, right=_right_of(request)), media_type)

    def _media_type(self, request: Request) -> str:
        """The media type of the answer. Raises NotAcceptable."""
        accept = request.headers.get("accept")
        try:
            chosen = self._types_by_accept[accept]
        except KeyError:
            chosen = choose(accept, OFFERED)
            if len(self._types_by_accept) < _ACCEPTS_REMEMBERED_MAX:
                self._types_by_accept[accept] = chosen
        if chosen is None:
            raise NotAcceptable(f"Accept names none of the types that are offered: {', '.join(OFFERED)}.")
        return chosen


def _sent(answer: GraphQLAnswer, media_type: str) -> Answer:
    refused = answer.kind == "request_error" and media_type == RESPONSE_TYPE
    return Answer(400 if refused else 200, answer.encoded, (_CONTENT_TYPES[media_type],))


def _right_of(request: Request) -> Right:
    return "public" if request.key is None else request.key.right


def _parse_body(body: bytes) -> GraphQLRequest:
    try:
        return _DECODE_BODY.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_place(error), f"The parameters are wrong: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = "empty" if not body.strip() else f"no valid JSON: {_reason(error)}"
        raise InvalidRequest("body", f"The body is {what}.") from None
    except RecursionError:
        raise InvalidRequest("body", "The body is no JSON that is read here: it is nested too deeply.") from None


def _parse_query(request: Request) -> GraphQLRequest:
    try:
        fields = request.query_fields()
    except ValueError as error:
        raise InvalidRequest("query string", f"The query string cannot be read: {error}.") from None
    if "query" not in fields:
        raise InvalidRequest("query", "The field query is missing from the query string.")
    return GraphQLRequest(
        query=fields["query"],
        operation_name=fields.get("operationName") or None,
        variables=_map(fields, "variables"),
        extensions=_map(fields, "extensions"),
    )


def _map(fields: dict[str, str], name: str) -> dict[str, Any] | None:
    """A field of the query string that holds a JSON object."""
    text = fields.get(name)
    if not text:
        return None
    try:
        return _DECODE_MAP.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequest(name, f"The field {name} must be a JSON object: {_reason(error)}.") from None


def _place(error: msgspec.ValidationError) -> str:
    """Where msgspec found the mistake: it ends its message with the path, if there is one."""
    return str(error).rpartition(" - at `$.")[2].rstrip("`") if " - at `$." in str(error) else "body"


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not valid UTF-8"
    return str(error).removeprefix("JSON is malformed: ")
