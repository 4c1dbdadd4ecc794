"""The well-done peer: what somebody who knows FastAPI, Redis and GraphQL well would build.

FastAPI and uvicorn (uvloop, httptools), redis-py on a Unix socket with hiredis, bodies decoded by msgspec into typed
structs, a Lua script for last-write-wins (one call a request, atomic), GraphQL documents parsed and validated once and
cached by their text. Redis runs with `appendfsync always`, so 202 means the same as segmentd's.

It is spared what segmentd also does: member counts, journal checkpoints, gzip, limits on GraphQL, other event types.
"""

import hashlib
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from fastapi import FastAPI, Request, Response
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLList,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    GraphQLString,
    execute,
    parse,
    validate,
)
from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import RedisError

from bench.peers.serving import PeerSettings, serve

HIGH = ("fs_user_id", "email", "customer_id", "a_high_confidence_identifier")
LOW = ("vuid",)
EVENTS_MAX = 500
FUTURE_SECONDS_MAX = 3600
DOCUMENTS_MAX = 1024
# More than the event loop keeps busy; a request that finds none waits for one.
REDIS_CONNECTIONS = 64
JSON = "application/json"


class EventData(msgspec.Struct):
    audience_id: str
    ts: int | float | None = None


class Event(msgspec.Struct):
    type: str
    action: Literal["qualify", "disqualify"]
    identifiers: dict[str, str]
    data: EventData


class GraphQLBody(msgspec.Struct, rename="camel"):
    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class Accepted(msgspec.Struct):
    title: str
    status: int
    timestamp: str


EVENTS = msgspec.json.Decoder(list[Event] | Event)
QUERY = msgspec.json.Decoder(GraphQLBody)
ENCODE = msgspec.json.Encoder().encode


class InvalidEvents(Exception):
    """Carries the list for `detail.invalids`."""

    def __init__(self, invalids: list[dict[str, Any]]) -> None:
        super().__init__("invalid events")
        self.invalids = invalids


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def script_arguments(events: list[Event], now: float) -> tuple[list[str], list[str | int]]:
    """KEYS and ARGV of the Lua script. Raises InvalidEvents with every event that is wrong."""
    places: dict[str, int] = {}
    arguments: list[str | int] = []
    invalids: list[dict[str, Any]] = []
    for index, event in enumerate(events):
        high = [name for name in event.identifiers if name not in LOW]
        ts = now if event.data.ts is None else event.data.ts
        if len(high) != 1 or high[0] not in HIGH or not event.identifiers[high[0]]:
            invalids.append(
                {"event": index, "field": "identifiers", "message": "exactly one high-confidence identifier"}
            )
        elif not 0 <= ts <= now + FUTURE_SECONDS_MAX:
            invalids.append({"event": index, "field": "data.ts", "message": "out of range"})
        elif event.type != "passthrough" or not 0 < len(event.data.audience_id) <= 128:
            invalids.append({"event": index, "field": "data.audience_id", "message": "not a passthrough event"})
        else:
            key = f"{high[0]}:{event.identifiers[high[0]]}"
            place = places.setdefault(key, len(places) + 1)
            arguments += (place, event.data.audience_id, round(ts * 1000) * 2 + (event.action == "disqualify"))
    if invalids:
        raise InvalidEvents(invalids)
    return list(places), arguments


class Queries:
    """GraphQL over the hashes in Redis."""

    def __init__(self, redis: Redis, audience_of_segment: dict[str, str]) -> None:
        self._redis = redis
        self._audience_of = audience_of_segment
        self._documents: OrderedDict[str, DocumentNode | list[GraphQLError]] = OrderedDict()
        self._schema = self._make_schema()

    async def answer(self, body: GraphQLBody) -> dict[str, Any]:
        document = self._document(body.query)
        if isinstance(document, list):
            return {"errors": [error.formatted for error in document]}
        result = execute(self._schema, document, variable_values=body.variables, operation_name=body.operation_name)
        finished = result if isinstance(result, ExecutionResult) else await result
        return dict(finished.formatted)

    def _document(self, text: str) -> DocumentNode | list[GraphQLError]:
        known = self._documents.get(text)
        if known is not None:
            self._documents.move_to_end(text)
            return known
        try:
            document: DocumentNode | list[GraphQLError] = parse(text)
        except GraphQLError as error:
            return [error]
        if errors := validate(self._schema, document):  # type: ignore[arg-type]
            document = list(errors)
        self._documents[text] = document
        if len(self._documents) > DOCUMENTS_MAX:
            self._documents.popitem(last=False)
        return document

    async def _audiences(self, key: str, _info: GraphQLResolveInfo[Any], subset: list[str | None] | None = None) -> Any:
        asked = self._audience_of if subset is None else dict.fromkeys(subset)
        segments = [name for name in asked if name in self._audience_of]
        if not segments:
            return {"edges": []}
        values = await self._redis.hmget(key, [self._audience_of[name] for name in segments])
        return {
            "edges": [
                {
                    "node": {
                        "name": name,
                        "state": "qualified",
                        "external_audience_id": self._audience_of[name],
                        "is_ready": True,
                        "qualified_at": int(value) / 2000,
                    }
                }
                for name, value in zip(segments, values, strict=True)
                if value is not None and int(value) % 2 == 0
            ]
        }

    def _make_schema(self) -> GraphQLSchema:
        node = GraphQLObjectType(
            "CustomerAudience",
            {
                "name": GraphQLField(GraphQLString),
                "state": GraphQLField(GraphQLString),
                "external_audience_id": GraphQLField(GraphQLString),
                "is_ready": GraphQLField(GraphQLBoolean),
                "qualified_at": GraphQLField(GraphQLFloat),
            },
        )
        edge = GraphQLObjectType("CustomerAudienceEdge", {"node": GraphQLField(node)})
        connection = GraphQLObjectType("CustomerAudienceConnection", {"edges": GraphQLField(GraphQLList(edge))})
        subset = {"subset": GraphQLArgument(GraphQLList(GraphQLString))}
        customer = GraphQLObjectType(
            "Customer", {"audiences": GraphQLField(connection, args=subset, resolve=self._audiences)}
        )
        names = [prefix + name for name in (*HIGH, *LOW) for prefix in ("", "_")]
        arguments = {name: GraphQLArgument(GraphQLString) for name in names}
        return GraphQLSchema(
            GraphQLObjectType("Query", {"customer": GraphQLField(customer, args=arguments, resolve=customer_key)})
        )


def customer_key(_root: object, _info: GraphQLResolveInfo[Any], **identifiers: str | None) -> str:
    given = [(name.removeprefix("_"), value) for name, value in identifiers.items() if value is not None]
    if len(given) != 1:
        raise GraphQLError(
            "exactly one identifier",
            extensions={"code": "INVALID_IDENTIFIER_EXCEPTION", "classification": "DataFetchingException"},
        )
    return f"{given[0][0]}:{given[0][1]}"


def make_app(settings: PeerSettings) -> FastAPI:
    pool = BlockingConnectionPool(
        max_connections=REDIS_CONNECTIONS,
        timeout=None,
        connection_class=UnixDomainSocketConnection,
        path=settings.redis_socket,
    )
    redis = Redis.from_pool(pool)
    script = redis.register_script((Path(__file__).parent / "last_write_wins.lua").read_text())
    queries = Queries(redis, settings.audience_of_segment)
    keys = {hashlib.sha256(settings.api_key.encode()).digest()}
    forbidden = ENCODE({"message": "Forbidden"})

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> Any:
        yield
        await redis.aclose()

    app = FastAPI(lifespan=lifespan, docs_url=None, openapi_url=None)

    def allowed(request: Request) -> bool:
        return hashlib.sha256(request.headers.get("x-api-key", "").encode()).digest() in keys

    def bad_request(detail: dict[str, Any]) -> Response:
        body = {"title": "Bad Request", "status": 400, "timestamp": now_text(), "detail": detail}
        return Response(ENCODE(body), 400, media_type=JSON)

    @app.post("/v3/events")
    async def post_events(request: Request) -> Response:
        if not allowed(request):
            return Response(forbidden, 403, media_type=JSON)
        try:
            decoded = EVENTS.decode(await request.body())
            events = decoded if isinstance(decoded, list) else [decoded]
            if not 0 < len(events) <= EVENTS_MAX:
                return bad_request({"message": f"between 1 and {EVENTS_MAX} events"})
            hashes, arguments = script_arguments(events, time.time())
        except msgspec.MsgspecError as error:
            return bad_request({"message": str(error)})
        except InvalidEvents as error:
            return bad_request({"invalids": error.invalids})
        await script(keys=hashes, args=arguments)
        return Response(ENCODE(Accepted("Accepted", 202, now_text())), 202, media_type=JSON)

    @app.post("/v3/graphql")
    async def post_graphql(request: Request) -> Response:
        if not allowed(request):
            return Response(forbidden, 403, media_type=JSON)
        try:
            body = QUERY.decode(await request.body())
        except msgspec.MsgspecError as error:
            return Response(ENCODE({"errors": [{"message": str(error)}]}), 400, media_type=JSON)
        return Response(ENCODE(await queries.answer(body)), 200, media_type=JSON)

    @app.get("/readyz")
    async def readyz() -> Response:
        try:
            await redis.ping()
        except RedisError:
            return Response(status_code=503)
        return Response(status_code=200)

    return app


if __name__ == "__main__":
    serve(make_app)
