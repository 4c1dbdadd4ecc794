"""The web application: every part of the edge put together, in a quart-trio app.

    app = build_app(settings=..., schema=..., store=..., catalog=..., engine=..., keyring=..., readiness=...,
                    telemetry=...)
    app.edge        # for other roads in: `edge.find(path)`, `await edge.answer(request, match)`

Owns the list of routes and the wiring. Never handles a request itself: Quart finds the view (`views.py`), the view asks
the edge. The list is ours, and Quart's rules are made of it, because a second road in and `/openapi.json` need it too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypedDict

from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.routing import MapAdapter

from segmentd.domain.events import EventRules
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.segments import SegmentRules
from segmentd.graphql.engine import GraphQLEngine
from segmentd.graphql.gathering import AwaitedReads
from segmentd.graphql.sdl import sdl_of
from segmentd.http.audiences import AudiencesApi
from segmentd.http.auth import Keyring
from segmentd.http.compliance import ComplianceApi, Forgets
from segmentd.http.connection import HttpConnection, UploadRequest
from segmentd.http.console import ConsoleApi
from segmentd.http.cors import Cors
from segmentd.http.customers import CustomersApi
from segmentd.http.edge import Edge, Published
from segmentd.http.elsewhere import Elsewhere
from segmentd.http.errors import events_shape, graphql_shape
from segmentd.http.events import Applies, EventsApi
from segmentd.http.graphql import GraphQLApi
from segmentd.http.holdings import Holdings
from segmentd.http.imports import ImportsApi
from segmentd.http.members import MembersApi
from segmentd.http.openapi import document
from segmentd.http.operations import OperationsApi
from segmentd.http.ratelimits import GuessLimit
from segmentd.http.readiness import Readiness
from segmentd.http.routing import Operation, Route, RouteTable
from segmentd.http.segments import SegmentCatalog, SegmentsApi
from segmentd.http.slowqueries import SlowQueries
from segmentd.http.status import StatusApi
from segmentd.http.views import Views
from segmentd.runtime.clusterhealth import SeesCluster
from segmentd.runtime.history import History
from segmentd.runtime.imports import Imports
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.observing import RememberingObserver
from segmentd.runtime.seam import DeletesAudiences, MembersReader, StoreStats
from segmentd.settings import Settings
from segmentd.telemetry import Telemetry
from segmentd.tracing import Tracing

NAME: Final = "segmentd"


class Insight(NamedTuple):
    """What only people look at, through the console."""

    memberships_of: Callable[[bytes], Awaitable[Mapping[str, int]]]
    """As `MembershipStore.memberships_of`."""
    stats: Callable[[], StoreStats]
    observed: RememberingObserver
    history: History
    cluster: SeesCluster | None = None
    """Where the store is in one."""


class App(QuartTrio):
    """The ASGI application that Hypercorn runs."""

    asgi_http_class = HttpConnection
    request_class = UploadRequest

    def __init__(self, edge: Edge, interludes: Interludes, request_read_seconds_max: float) -> None:
        """interludes: are filled by the lanes, with the queries that wait."""
        super().__init__(NAME, static_folder=None)
        self.edge = edge
        self.interludes = interludes
        # Each route has its own bound, in the views; sending is bounded where the socket is.
        self.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
        # One slash at the end of a path means nothing; no path is ever redirected to another.
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        Views(edge, request_read_seconds_max).register(self)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Routes do not depend on the host that a client names, be it well-formed or not."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(NAME, path_info=request.path, default_method=request.method, url_scheme=request.scheme)


def build_app(
    *,
    settings: Settings,
    schema: IdentifierSchema,
    store: Applies,
    catalog: SegmentCatalog,
    imports: Imports,
    reader: MembersReader,
    deletes: DeletesAudiences,
    forgetting: Forgets,
    engine: GraphQLEngine,
    keyring: Keyring,
    readiness: Readiness,
    telemetry: Telemetry,
    insight: Insight,
    interludes: Interludes,
    elsewhere: Elsewhere | None = None,
    published: Published | None = None,
    awaited: AwaitedReads | None = None,
    tracing: Tracing | None = None,
    clock: Callable[[], float] = time.time,
) -> App:
    """elsewhere: followers, if there are any; published: to them. awaited: how queries read where the store has to be
    waited for; None: `engine` has one that has not. clock: seconds since the epoch.
    interludes: of the store; the app's lanes have their turn in them.
    """
    event_rules, segment_rules = _rules(settings, schema)
    events = EventsApi(store, event_rules, settings.limits, telemetry, clock, interludes)
    graphql = GraphQLApi(engine, settings.limits, reader.settled, awaited)
    routes = [
        *_api_routes(settings, events, SegmentsApi(catalog, segment_rules, settings.limits), graphql),
        *_import_routes(settings, ImportsApi(imports.uploads, imports.jobs, imports.importer, event_rules, clock)),
        *AudiencesApi(deletes, reader, catalog, imports.jobs, clock=clock).routes(),
        *MembersApi(reader, catalog, schema, imports.jobs, settings).routes(),
        *ComplianceApi(forgetting, schema, settings.compliance, clock).routes(),
        *CustomersApi(insight.memberships_of, catalog, schema, imports.jobs, settings.limits).routes(),
        *_status(settings, readiness, insight, clock).routes(),
        *_operation_routes(_operations(settings, schema, readiness, telemetry, elsewhere, insight.cluster)),
        *(ConsoleApi().routes() if settings.console.enabled else ()),
    ]
    edge = Edge(
        RouteTable(routes),
        keyring=keyring,
        readiness=readiness,
        telemetry=telemetry,
        clock=clock,
        published=published,
        slow_queries=SlowQueries(settings.log, graphql.described, telemetry.slow_query),
        tracing=tracing,
        **_guards(settings),
    )
    return App(edge, interludes, settings.server.request_read_seconds_max)


class _Guards(TypedDict):
    """What an edge knows from the settings alone."""

    access_log: bool
    cors: Cors
    guesses: GuessLimit
    holdings: Holdings
    proxies_in_front: int


def _guards(settings: Settings) -> _Guards:
    return _Guards(
        access_log=settings.log.level == "debug",
        cors=Cors(settings.cors.origins, settings.cors.max_age_seconds),
        guesses=GuessLimit(settings.rates.wrong_keys_per_minute, settings.rates.wrong_key_addresses_max),
        holdings=Holdings(settings),
        proxies_in_front=settings.rates.proxies_in_front,
    )


def _status(settings: Settings, readiness: Readiness, insight: Insight, clock: Callable[[], float]) -> StatusApi:
    return StatusApi(
        settings,
        readiness=readiness,
        stats=insight.stats,
        observed=insight.observed,
        history=insight.history,
        cluster=insight.cluster,
        clock=clock,
    )


def _operations(
    settings: Settings,
    schema: IdentifierSchema,
    readiness: Readiness,
    telemetry: Telemetry,
    elsewhere: Elsewhere | None,
    cluster: SeesCluster | None,
) -> OperationsApi:
    return OperationsApi(readiness, telemetry, document(settings), sdl_of(schema), elsewhere, cluster)


def _rules(settings: Settings, schema: IdentifierSchema) -> tuple[EventRules, SegmentRules]:
    limits = settings.limits
    event_rules = EventRules(
        schema,
        future_seconds_max=settings.events.future_seconds_max,
        events_max=limits.events_per_request_max,
        audience_id_chars_max=limits.audience_id_chars_max,
        invalids_listed_max=limits.invalids_listed_max,
        passthrough_enabled=settings.passthrough.enabled,
    )
    segment_rules = SegmentRules(
        event_rules,
        segment_id_chars_max=limits.segment_id_chars_max,
        description_chars_max=limits.description_chars_max,
        metadata_entries_max=limits.metadata_entries_max,
        metadata_key_chars_max=limits.metadata_key_chars_max,
        metadata_value_chars_max=limits.metadata_value_chars_max,
    )
    return event_rules, segment_rules


def _api_routes(settings: Settings, events: EventsApi, segments: SegmentsApi, graphql: GraphQLApi) -> Iterator[Route]:
    limits = settings.limits
    yield Route(
        "/v3/events",
        {"POST": Operation(events.post, "public", events.at_once, shows=False)},
        shape=events_shape,
        body_bytes_max=limits.events_body_bytes_max,
        limit_name="events_body_bytes_max",
        public=True,
    )
    yield Route(
        "/v3/graphql",
        {"GET": Operation(graphql.get, "public"), "POST": Operation(graphql.post, "public", graphql.at_once)},
        shape=graphql_shape,
        body_bytes_max=limits.graphql_body_bytes_max,
        limit_name="graphql_body_bytes_max",
        public=True,
    )
    put = Operation(segments.put, "private")
    by_template = {
        "/v3/segments": {"GET": Operation(segments.list, "private")},
        "/v3/segments/{segment_id}:validate": {"POST": Operation(segments.validate, "private")},
        "/v3/segments/{segment_id}": {
            "GET": Operation(segments.get, "private"),
            "POST": put,
            "PUT": put,
            "DELETE": Operation(segments.delete, "private"),
        },
    }
    for template, operations in by_template.items():
        yield Route(
            template,
            operations,
            body_bytes_max=limits.segments_body_bytes_max,
            limit_name="segments_body_bytes_max",
        )


def _import_routes(settings: Settings, imports: ImportsApi) -> Iterator[Route]:
    yield Route(
        "/v3/audiences/{audience_id}/imports",
        {"POST": Operation(imports.post, "private")},
        shape=events_shape,
        body_bytes_max=settings.limits.imports_body_bytes_max,
        limit_name="imports_body_bytes_max",
        streams=True,
    )
    yield Route("/v3/imports", {"GET": Operation(imports.list, "private")})
    cancel = Operation(imports.cancel, "private")
    yield Route("/v3/imports/{import_id}", {"GET": Operation(imports.get, "private"), "DELETE": cancel})
    yield Route("/v3/imports/{import_id}/cancel", {"POST": cancel})


def _operation_routes(operations: OperationsApi) -> Iterator[Route]:
    handlers = {
        "/healthz": operations.healthz,
        "/readyz": operations.readyz,
        "/metrics": operations.metrics,
        "/openapi.json": operations.openapi,
        "/schema.graphql": operations.schema,
    }
    for template, handler in handlers.items():
        yield Route(template, {"GET": Operation(handler, None)}, drains=False)
