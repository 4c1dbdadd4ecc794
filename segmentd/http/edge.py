"""The edge: what happens to every request around its handler, whichever road it came in by.

Owns the order: request id, route, method, key and right, readiness, handler, refusal → answer, headers, metrics, log.
Never reads from or writes to a connection.

Invariants:
1. `answer` always returns an answer; only cancellation leaves it otherwise.
2. Nothing of a request is looked at before its key was found good, except its path, method and headers.
3. Every answer has `x-request-id`; on public paths it has the CORS headers, errors included.
4. No answer shows less than a follower showed when the request came.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import Token
from functools import partial
from typing import Final, NamedTuple, Protocol

import structlog

from segmentd.domain.refusals import Forbidden, RateLimited, Refusal, TooManyWrongKeys
from segmentd.http.auth import Key, Keyring
from segmentd.http.cors import Cors
from segmentd.http.errors import Failed, MethodNotAllowed, NoSuchPath, answer_to, plain_shape
from segmentd.http.exchange import WAITING, Answer, Header, Request, Waiting, request_id_of
from segmentd.http.holdings import Holdings
from segmentd.http.ratelimits import GuessLimit, Quota, client_address
from segmentd.http.readiness import Readiness
from segmentd.http.requestspans import begin_span, end_span, method_of
from segmentd.http.routing import UNMATCHED, Later, Match, Operation, Route, RouteTable
from segmentd.http.slowqueries import SlowQueries
from segmentd.logs import RequestContext, current_request
from segmentd.telemetry import Telemetry
from segmentd.tracing import Tracing

QUERIES: Final = "/v3/graphql"
_TRACEPARENT_CHARS_MAX: Final = 128  # 55 today (W3C Trace Context); later versions may be longer

_log = structlog.get_logger(__name__)


class Published(Protocol):
    """What followers may show already; see `segmentd.runtime.publication`."""

    def is_behind(self) -> bool: ...
    async def merged(self) -> None: ...


class _Begun(NamedTuple):
    """A request that is being answered. started: of the performance counter."""

    started: float
    context: RequestContext
    token: Token[RequestContext | None]


class Edge:
    """Answers requests."""

    def __init__(
        self,
        routes: RouteTable,
        *,
        keyring: Keyring,
        readiness: Readiness,
        telemetry: Telemetry,
        cors: Cors,
        clock: Callable[[], float],
        access_log: bool,
        guesses: GuessLimit,
        holdings: Holdings,
        proxies_in_front: int = 0,
        published: Published | None = None,
        slow_queries: SlowQueries | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """clock: seconds since the epoch. access_log: one line a request, at debug level. guesses: of unknown keys.
        holdings: for the roads in, which read the bodies.
        proxies_in_front: how many add to `X-Forwarded-For`. published: to followers, None if there are none.
        slow_queries: what is told of them, None for nothing. tracing: None where nothing is traced.
        """
        self.holdings = holdings
        self._routes = routes
        self._keyring = keyring
        self._readiness = readiness
        self._telemetry = telemetry
        self._cors = cors
        self._clock = clock
        self._access_log = access_log
        self._guesses = guesses
        self._proxies_in_front = proxies_in_front
        self._published = published
        self._slow_queries = slow_queries
        self._tracing = tracing
        self._slow_seconds_min = math.inf if slow_queries is None else slow_queries.seconds_min

    @property
    def routes(self) -> tuple[Route, ...]:
        """Everything that is served."""
        return self._routes.routes

    def find(self, path: str) -> Match:
        """Where a raw path leads; a road in needs it for the bound of the body."""
        return self._routes.find(path)

    async def answer(self, request: Request, match: Match, trouble: Refusal | None = None) -> Answer:
        """The answer to `request`.

        trouble: what went wrong while the body was read. It is told only to those with a key.
        """
        begun = self._begin(request, match)
        try:
            try:
                answer = await self._served(request, match.route, trouble)
            except Exception as error:  # noqa: BLE001  # logged with its traceback, and the client is told
                answer = self._instead(error, request, match.route)
            self._end(request, match.route, answer, begun)
        finally:
            current_request.reset(begun.token)
        return answer

    def answer_at_once(
        self, request: Request, match: Match, later: Callable[[Answer], None]
    ) -> Answer | Waiting | None:
        """As `answer`, without a task; None where that needs one, and nothing was done.

        later: is given the answer where `WAITING` is returned.
        """
        route = match.route
        operation = None if route is None else route.operation(request.method)
        at_once = None if operation is None else operation.at_once
        if route is None or operation is None or at_once is None or at_once.may_wait(request):
            return None
        if self._published is not None and operation.shows and self._published.is_behind():
            return None
        begun = self._begin(request, match)
        try:
            try:
                self._admit(request, route, operation, None)
                answer = at_once.answer(request)
                if isinstance(answer, Later):
                    answer.done.then(partial(self._answer_later, request, route, begun, answer.answer, later))
                    return WAITING
            except Exception as error:  # noqa: BLE001  # logged with its traceback, and the client is told
                answer = self._instead(error, request, route)
            self._end(request, route, answer, begun)
        finally:
            current_request.reset(begun.token)
        return answer

    def _answer_later(
        self,
        request: Request,
        route: Route,
        begun: _Begun,
        answered: Callable[[Exception | None], Answer],
        later: Callable[[Answer], None],
        failure: Exception | None,
    ) -> None:
        token = current_request.set(begun.context)
        try:
            try:
                answer = answered(failure)
            except Exception as error:  # noqa: BLE001  # logged with its traceback, and the client is told
                answer = self._instead(error, request, route)
            self._end(request, route, answer, begun)
        finally:
            current_request.reset(token)
        later(answer)

    def unreadable(self, refusal: Refusal) -> Answer:
        """The answer to bytes in which no request could be read; the connection ends after it."""
        request = Request("", "", "", {}, request_id=request_id_of({}))
        answer = self._refused(request, None, refusal)
        answer.headers += (("x-request-id", request.request_id),)
        answer.close = True
        self._observe(request, None, answer, 0.0)
        return answer

    def _begin(self, request: Request, match: Match) -> _Begun:
        started = time.perf_counter()
        request.request_id = request_id_of(request.headers)
        request.params = match.params
        traceparent = request.headers.get("traceparent")
        traceparent = traceparent and traceparent[:_TRACEPARENT_CHARS_MAX]
        span = None if self._tracing is None else begin_span(self._tracing, request, match, traceparent)
        context = RequestContext(request.request_id, traceparent if span is None else span.context.traceparent, span)
        return _Begun(started, context, current_request.set(context))

    def _instead(self, error: Exception, request: Request, route: Route | None) -> Answer:
        """Refusals and failures are answers too. Call it while `error` is handled."""
        if isinstance(error, Refusal):
            return self._refused(request, route, error)
        # The last stand of one request: the client gets its request id, the log gets the reason, others go on.
        _log.exception("request failed", method=request.method, path=request.path)
        failed = Failed(f"Something failed here; the log has the reason under request id {request.request_id}.")
        return self._refused(request, route, failed)

    def _end(self, request: Request, route: Route | None, answer: Answer, begun: _Begun) -> None:
        """What every answer has beside its own headers; metrics and log."""
        extra: tuple[Header, ...] = (("x-request-id", request.request_id),)
        if route is not None and route.public:
            extra += self._cors.headers(request)
        if request.key is not None and request.key.quotas is not None:
            extra += request.key.quotas.headers()
        answer.headers += extra
        answer.close = answer.close or self._readiness.draining
        self._observe(request, route, answer, time.perf_counter() - begun.started)
        if begun.context.span is not None:
            end_span(begun.context.span, request, answer)

    async def _served(self, request: Request, route: Route | None, trouble: Refusal | None) -> Answer:
        if route is None:
            raise NoSuchPath(f"Nothing is served at {request.path[:200]}.")
        operation = route.operation(request.method)
        if operation is None:
            if request.method == "OPTIONS":
                return self._cors.preflight(request, route.allow)
            raise MethodNotAllowed(
                f"{request.method[:20]} is not served at {route.template}; allowed: {route.allow}.", route.allow
            )
        self._admit(request, route, operation, trouble)
        if self._published is not None and operation.shows and route.drains and self._published.is_behind():
            await self._published.merged()
        return await operation.handle(request)

    def _admit(self, request: Request, route: Route, operation: Operation, trouble: Refusal | None) -> None:
        """Raises the refusal of whoever may not have this, or not now."""
        if operation.needs is not None:
            key = request.key = self._keyring.remembered(request.headers.get("x-api-key")) or self._searched(request)
            if key is None or not key.may(operation.needs):
                raise Forbidden
            if key.quotas is not None:
                charge(key.quotas.requests, 1)
        unready = self._readiness.refusal() if route.drains else None
        if unready is not None:
            raise unready
        if trouble is not None:
            raise trouble

    def _searched(self, request: Request) -> Key | None:
        """The key of a secret that was not seen before. Raises TooManyWrongKeys where the client may not try one."""
        secret = request.headers.get("x-api-key")
        if not secret:
            return None
        address = client_address(request.peer, request.headers.get("x-forwarded-for"), self._proxies_in_front)
        wait_seconds = self._guesses.wait_of(address)
        if wait_seconds:
            raise TooManyWrongKeys("Too many unknown keys came from this address.", math.ceil(wait_seconds))
        key = self._keyring.search(secret)
        if key is None:
            self._guesses.guessed(address)
        return key

    def _refused(self, request: Request, route: Route | None, refusal: Refusal) -> Answer:
        self._telemetry.refused(UNMATCHED if route is None else route.template, refusal.code)
        shape = plain_shape if route is None else route.shape
        return answer_to(refusal, request, shape, self._clock())

    def _observe(self, request: Request, route: Route | None, answer: Answer, seconds: float) -> None:
        template = UNMATCHED if route is None else route.template
        self._telemetry.requested(template, method_of(request), answer.status, seconds, request.road)
        if seconds >= self._slow_seconds_min and template == QUERIES and self._slow_queries is not None:
            self._slow_queries.tell(request, answer, seconds)
        if self._access_log:
            _log.debug(
                "request",
                method=request.method,
                path=request.path,
                status=answer.status,
                seconds=round(seconds, 6),
                key=request.key and request.key.id,
                bytes_in=len(request.body),
                bytes_out=len(answer.body),
                road=request.road,
            )


def charge(quota: Quota | None, count: int) -> None:
    """Take `count` from what a key may ask for. Raises RateLimited; then nothing was taken."""
    wait_seconds = 0.0 if quota is None else quota.take(count)
    if quota is not None and wait_seconds:
        message = f"This key may send {quota.rate:g} {quota.name} per second; nothing of this request was applied."
        raise RateLimited(message, math.ceil(wait_seconds))
