"""The edge with everything around it: in-memory stand-ins for store and catalog, the real engine, the real app."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import trio

from segmentd import keyfile
from segmentd.domain.events import Change
from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.domain.membership import is_qualified
from segmentd.domain.refusals import Refusal
from segmentd.domain.segments import Segment, SegmentDefinition, SegmentTable
from segmentd.graphql.engine import GraphQLEngine
from segmentd.graphql.gathering import AwaitedReads
from segmentd.http.app import App, Insight, build_app
from segmentd.http.auth import Keyring
from segmentd.http.exchange import Answer, Request
from segmentd.http.readiness import Readiness
from segmentd.http.traffic import counts_of
from segmentd.runtime.forgetting import Forgetting
from segmentd.runtime.history import History
from segmentd.runtime.imports import Imports
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.liststore import ListStore
from segmentd.runtime.mailbox import Reply
from segmentd.runtime.observing import RememberingObserver
from segmentd.runtime.seam import DeletesAudiences, MembersReader, StoreStats
from segmentd.runtime.store import LocalStore
from segmentd.settings import KeySettings, PassthroughSettings, Settings
from segmentd.telemetry import Telemetry
from tests.awaited import AwaitedFake

RETRY_AFTER_SECONDS = 7
NOW_SECONDS = 1_795_447_360.45  # 2026-11-23T15:22:40.450Z
PUBLIC = {"x-api-key": "test-public"}
PRIVATE = {"x-api-key": "test-private"}


class MemoryStore:
    """Memberships in a dict; `apply` waits for `gate` and raises `refusal` if there is one."""

    def __init__(self) -> None:
        self.memberships: dict[tuple[bytes, str], int] = {}
        self.refusal: Exception | None = None
        self.full: Exception | None = None
        self.gate: trio.Event | None = None
        self.applying = trio.Event()
        self.broken: str | None = None

    def check_room(self) -> None:
        if self.full is not None:
            raise self.full

    def submit(self, changes: Sequence[Change]) -> Reply[None]:
        reply: Reply[None] = Reply()
        trio.lowlevel.spawn_system_task(self._answer, changes, reply)
        return reply

    async def _answer(self, changes: Sequence[Change], reply: Reply[None]) -> None:
        try:
            await self.apply(changes)
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            reply.fail(error)
        else:
            reply.set(None)

    async def apply(self, changes: Sequence[Change]) -> None:
        self.applying.set()
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        for key, audience, v in changes:
            self.memberships[key, audience] = max(v, self.memberships.get((key, audience), 0))

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        return [self.memberships.get((key, audience)) for audience in audiences]

    async def memberships_of(self, key: bytes) -> dict[str, int]:
        return {audience: v for (other, audience), v in self.memberships.items() if other == key}

    def size(self, audience: str) -> int:
        return sum(is_qualified(v) for (_, of), v in self.memberships.items() if of == audience)

    def stats(self) -> StoreStats:
        return StoreStats(
            identifiers=len({key for key, _ in self.memberships}),
            memberships=len(self.memberships),
            audiences=len({audience for _, audience in self.memberships}),
            journal_records=7,
            journal_bytes=4096,
            commits_waiting=0,
            unfolded_records=2,
        )

    def failure(self) -> str | None:
        return self.broken


class MemoryCatalog:
    """The real segment table without a journal; a write takes a moment, as a durable one does."""

    def __init__(self, segments_max: int = 1_000) -> None:
        self.table = SegmentTable(segments_max)
        self.refusal: Refusal | None = None

    @property
    def segments(self) -> Mapping[str, Segment]:
        return self.table.present

    def segment_ids(self) -> list[str]:
        return self.table.segment_ids()

    async def put(self, segment_id: str, definition: SegmentDefinition, if_match: int | None) -> tuple[Segment, bool]:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        created = segment_id not in self.segments
        record = self.table.plan_put(segment_id, definition, if_match, int(NOW_SECONDS * 1000))
        if record is not None:
            self.table.fold(record)
        return self.segments[segment_id], created

    async def delete(self, segment_id: str, if_match: int | None) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.table.fold(self.table.plan_delete(segment_id, if_match, int(NOW_SECONDS * 1000)))
        return list(self.segment_ids())


def hashed(right: str, secret: str) -> KeySettings:
    """A key as it stands in a configuration."""
    salt = bytes(range(16))
    return msgspec.convert(
        {"right": right, "salt": salt.hex(), "sha256": keyfile.hash_of(salt, secret).hex()}, KeySettings
    )


def settings_with(**sections: Any) -> Settings:
    """Settings for tests: two keys, passthrough on; whole sections may be replaced."""
    keys = {"web": hashed("public", "test-public"), "ops": hashed("private", "test-private")}
    return Settings(**{"passthrough": PassthroughSettings(enabled=True), "keys": keys, **sections})


def schema_of(settings: Settings) -> IdentifierSchema:
    """The configured identifiers, numbered in their order."""
    number = itertools.count()
    return IdentifierSchema(
        [
            IdentifierKind(name, Confidence(kind.confidence), next(number), kind.lower_case)
            for name, kind in settings.identifiers.items()
        ],
        settings.limits.identifier_bytes_max,
    )


class UnsettledReader:
    """No members: what they are is shown with a real server."""

    async def settled(self) -> None:
        await trio.lowlevel.checkpoint()


async def _no_sizes() -> dict[str, int]:
    return {}


class World:
    """An app and all that it stands on."""

    def __init__(self, settings: Settings | None = None, store: Any = None, *, is_awaited: bool = False) -> None:
        """store: a real one, in the place of the memory's. is_awaited: queries have to wait for it."""
        self.settings = settings or settings_with()
        self.store: Any = store or MemoryStore()
        self.catalog = MemoryCatalog(self.settings.limits.segments_max)
        self.schema = schema_of(self.settings)
        # None of what is awaited may find another way.
        at_hand = None if is_awaited else self.store
        self.engine = GraphQLEngine(at_hand, self.catalog, self.schema, self.settings.graphql)
        self.fake = AwaitedFake(self.store)
        self.readiness = Readiness(self.settings.runtime.retry_after_seconds, self.store.failure)
        self.telemetry = Telemetry()
        self.telemetry.watch_plans(lambda: self.engine.answered_by_plans)
        self.telemetry.watch_store(self.store.stats, lambda: len(self.catalog.segments))
        self.now_seconds = NOW_SECONDS
        self.keyring = Keyring(self.settings.keys, rates=self.settings.rates, clock=lambda: self.now_seconds)
        self.reader = cast(MembersReader, UnsettledReader())
        self.app: App = build_app(
            settings=self.settings,
            schema=self.schema,
            store=self.store,
            catalog=self.catalog,
            # Its routes, without anything behind them: what imports do is shown with a real server.
            imports=Imports(self.settings, self.schema, cast(ListStore, None)),
            reader=self.reader,
            deletes=cast(DeletesAudiences, None),
            forgetting=cast(Forgetting, None),
            engine=self.engine,
            keyring=self.keyring,
            readiness=self.readiness,
            telemetry=self.telemetry,
            insight=self._insight(),
            awaited=AwaitedReads(self.fake, None, RETRY_AFTER_SECONDS) if is_awaited else None,
            interludes=self.store.interludes if isinstance(self.store, LocalStore) else Interludes(),
            clock=lambda: self.now_seconds,
        )
        self.readiness.ready()

    def _insight(self) -> Insight:
        history = History(self.settings.console, partial(counts_of, self.telemetry), _no_sizes)
        return Insight(self.store.memberships_of, self.store.stats, RememberingObserver(self.telemetry), history)

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """One request through the edge, without a network."""
        path, _, query = target.partition("?")
        request = Request(method, path, query, dict(headers or {}), body)
        return await self.app.edge.answer(request, self.app.edge.find(path))

    def state(self) -> tuple[dict[tuple[bytes, str], int], dict[str, Segment]]:
        """All that requests can change."""
        return dict(self.store.memberships), dict(self.catalog.segments)

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a metric now."""
        return self.telemetry.registry.get_sample_value(name, labels)


def read(answer: Answer) -> Any:
    """The JSON of an answer."""
    return msgspec.json.decode(answer.body)


def header(answer: Answer, name: str) -> str | None:
    """A header of an answer, or None."""
    return dict(answer.headers).get(name)


def event(**changes: Any) -> dict[str, Any]:
    """A valid event, changed."""
    valid = {
        "type": "passthrough",
        "action": "qualify",
        "identifiers": {"fs_user_id": "u-17"},
        "data": {"audience_id": "audience_1", "ts": 1_748_851_070},
    }
    return {**valid, **changes}


def definition(audience_id: str = "audience_1", **more: Any) -> dict[str, Any]:
    """A valid body for a segment write."""
    return {"description": "People.", "definition": {"external": {"external_audience_id": audience_id}}, **more}
