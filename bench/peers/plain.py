"""The plain peer: what the first page of each library's tutorial gives.

FastAPI with pydantic models, redis-py with a pipeline of HSET (last arrival wins, not last `ts`: less than segmentd
promises), ariadne that parses and validates every document. Redis runs with `appendfsync always` here too.
"""

from datetime import UTC, datetime
from typing import Any, Literal

from ariadne import ObjectType, QueryType, graphql, make_executable_schema
from fastapi import FastAPI, Header, Response
from fastapi.responses import JSONResponse
from graphql import GraphQLResolveInfo
from pydantic import BaseModel, Field, model_validator
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.peers.serving import PeerSettings, serve

HIGH = ("fs_user_id", "email", "customer_id", "a_high_confidence_identifier")

TYPES = """
type Query { customer(fs_user_id: String, email: String, customer_id: String, vuid: String,
                      a_high_confidence_identifier: String, _a_high_confidence_identifier: String): Customer }
type Customer { audiences(subset: [String]): CustomerAudienceConnection }
type CustomerAudienceConnection { edges: [CustomerAudienceEdge] }
type CustomerAudienceEdge { node: CustomerAudience }
type CustomerAudience { name: String  state: String  external_audience_id: String  qualified_at: Float }
"""


class EventData(BaseModel):
    audience_id: str = Field(min_length=1, max_length=128)
    ts: float


class Event(BaseModel):
    type: Literal["passthrough"]
    action: Literal["qualify", "disqualify"]
    identifiers: dict[str, str]
    data: EventData

    @model_validator(mode="after")
    def one_high_confidence_identifier(self) -> "Event":
        high = [name for name in self.identifiers if name != "vuid"]
        if len(high) != 1 or high[0] not in HIGH:
            raise ValueError("exactly one high-confidence identifier")
        return self

    def key(self) -> str:
        name, value = next(pair for pair in self.identifiers.items() if pair[0] in HIGH)
        return f"{name}:{value}"

    def v(self) -> int:
        return round(self.data.ts * 1000) * 2 + (self.action == "disqualify")


def make_schema(redis: Redis, audience_of: dict[str, str]) -> Any:
    query, customer = QueryType(), ObjectType("Customer")

    @query.field("customer")
    def resolve_customer(_root: object, _info: GraphQLResolveInfo[Any], **identifiers: str | None) -> str:
        given = [(name.removeprefix("_"), value) for name, value in identifiers.items() if value is not None]
        if len(given) != 1:
            raise ValueError("exactly one identifier")
        return f"{given[0][0]}:{given[0][1]}"

    @customer.field("audiences")
    async def resolve_audiences(
        key: str, _info: GraphQLResolveInfo[Any], subset: list[str | None] | None = None
    ) -> dict[str, Any]:
        memberships = await redis.hgetall(key)
        edges = []
        for name in dict.fromkeys(subset if subset is not None else audience_of):
            value = memberships.get(audience_of.get(name or "", "").encode())
            if value is not None and int(value) % 2 == 0:
                node = {"name": name, "state": "qualified", "qualified_at": int(value) / 2000}
                edges.append({"node": node})
        return {"edges": edges}

    return make_executable_schema(TYPES, query, customer)


def make_app(settings: PeerSettings) -> FastAPI:
    redis = Redis(unix_socket_path=settings.redis_socket, max_connections=1000)
    schema = make_schema(redis, settings.audience_of_segment)
    app = FastAPI()

    @app.post("/v3/events", status_code=202)
    async def post_events(events: list[Event], x_api_key: str = Header("")) -> Any:
        if x_api_key != settings.api_key:
            return JSONResponse({"message": "Forbidden"}, 403)
        pipeline = redis.pipeline(transaction=False)
        for event in events:
            pipeline.hset(event.key(), event.data.audience_id, event.v())
        await pipeline.execute()
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return JSONResponse({"title": "Accepted", "status": 202, "timestamp": now}, 202)

    @app.post("/v3/graphql")
    async def post_graphql(body: dict[str, Any], x_api_key: str = Header("")) -> Any:
        if x_api_key != settings.api_key:
            return JSONResponse({"message": "Forbidden"}, 403)
        _success, result = await graphql(schema, body)
        return JSONResponse(result)

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
