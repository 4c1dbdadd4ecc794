"""The edge of a follower: answers to queries that it fully understands, and nothing else.

Whatever would be refused, limited or counted otherwise goes to the owner, with the whole connection: so there is one
process that tells of errors, knows how often a key was used or guessed, and has every route. Never waits.

Invariants:
1. An answer given here is the one that the owner would give at the same moment or later.
2. A request that is not answered here has changed nothing: no count, no quota, no line in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from segmentd.domain.refusals import Refusal
from segmentd.graphql.engine import GraphQLEngine, GraphQLRequest
from segmentd.http.auth import Keyring
from segmentd.http.cors import Cors
from segmentd.http.edge import QUERIES, Edge
from segmentd.http.elsewhere import NotHereError
from segmentd.http.errors import graphql_shape
from segmentd.http.exchange import Answer, Request
from segmentd.http.graphql import GraphQLApi
from segmentd.http.holdings import Holdings
from segmentd.http.ratelimits import GuessLimit
from segmentd.http.readiness import Readiness
from segmentd.http.routing import AtOnce, Operation, Route, RouteTable
from segmentd.http.slowqueries import SlowQueries
from segmentd.runtime.following import FollowingStore
from segmentd.settings import LimitsSettings, Settings
from segmentd.storage.errors import StorageError
from segmentd.telemetry import Telemetry
from segmentd.tracing import Tracing


class FollowingGraphQL(GraphQLApi):
    """Handlers of `/v3/graphql` over a store that follows."""

    def __init__(
        self,
        engine: GraphQLEngine,
        store: FollowingStore,
        limits: LimitsSettings,
        failed: Callable[[StorageError], None],
    ) -> None:
        """failed: called where the store cannot be read; what it shows from then on must not be shown."""
        super().__init__(engine, limits, settled=_never)
        self._following = engine
        self._store = store
        self._failed = failed

    def may_wait(self, _request: Request) -> bool:
        """Never: what would have to wait is not answered here."""
        return False

    async def post(self, request: Request) -> Answer:
        """As `post_at_once`."""
        return self.post_at_once(request)

    def executed(self, parsed: GraphQLRequest, request: Request, media_type: str) -> Answer:
        """The answer, from one state of the store. Raises NotHereError."""
        if not self._following.follower_may_answer(parsed):
            raise NotHereError
        try:
            with self._store.reading():
                return super().executed(parsed, request, media_type)
        except StorageError as error:
            self._failed(error)
            raise NotHereError from error


class FollowerEdge(Edge):
    """Answers what is plainly right; everything else raises NotHereError."""

    def _admit(self, request: Request, route: Route, operation: Operation, trouble: Refusal | None) -> None:
        if trouble is not None:
            raise NotHereError
        secret = request.headers.get("x-api-key")
        key = self._keyring.remembered(secret) or self._keyring.search(secret or "")
        # How much of a quota is left is known to one process only.
        if key is None or key.quotas is not None:
            raise NotHereError
        super()._admit(request, route, operation, trouble)

    def _instead(self, error: Exception, request: Request, route: Route | None) -> Answer:
        if isinstance(error, NotHereError):
            raise error
        if isinstance(error, Refusal):
            raise NotHereError from error
        return super()._instead(error, request, route)


def build_edge(
    settings: Settings,
    graphql: FollowingGraphQL,
    keyring: Keyring,
    telemetry: Telemetry,
    tracing: Tracing | None = None,
) -> FollowerEdge:
    """The edge of a follower that is ready."""
    limits = settings.limits
    readiness = Readiness(settings.runtime.retry_after_seconds)
    readiness.ready()
    operation = Operation(graphql.post, "public", AtOnce(graphql.may_wait, graphql.post_at_once))
    route = Route(
        QUERIES,
        {"POST": operation},
        shape=graphql_shape,
        body_bytes_max=limits.graphql_body_bytes_max,
        limit_name="graphql_body_bytes_max",
        public=True,
    )
    return FollowerEdge(
        RouteTable([route]),
        keyring=keyring,
        readiness=readiness,
        telemetry=telemetry,
        cors=Cors(settings.cors.origins, settings.cors.max_age_seconds),
        clock=time.time,
        access_log=settings.log.level == "debug",
        guesses=GuessLimit(settings.rates.wrong_keys_per_minute, settings.rates.wrong_key_addresses_max),
        holdings=Holdings(settings),
        proxies_in_front=settings.rates.proxies_in_front,
        slow_queries=SlowQueries(settings.log, graphql.described, telemetry.slow_query),
        tracing=tracing,
    )


async def _never() -> None:
    raise NotHereError
