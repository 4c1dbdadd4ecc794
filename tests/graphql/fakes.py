"""In-memory stand-ins for what GraphQL reads, and an engine over them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import trio

from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.domain.membership import is_qualified, v_of
from segmentd.domain.segments import Segment, SegmentDefinition
from segmentd.graphql.context import MembershipReader, SegmentReader
from segmentd.graphql.engine import GraphQLAnswer, GraphQLEngine, GraphQLRequest
from segmentd.graphql.gathering import AwaitedReads
from segmentd.settings import GraphQLSettings
from tests.awaited import AwaitedFake

IDENTIFIERS = IdentifierSchema(
    [
        IdentifierKind("fs_user_id", Confidence.HIGH, 0),
        IdentifierKind("email", Confidence.HIGH, 1, lower_case=True),
        IdentifierKind("a_high_confidence_identifier", Confidence.HIGH, 2),
        IdentifierKind("vuid", Confidence.LOW, 3),
    ]
)


class FakeStore:
    """Memberships as a dict of dicts."""

    def __init__(self) -> None:
        self.decisions: dict[bytes, dict[str, int]] = {}
        self.failure: Exception | None = None

    def decide(self, identifier: str, value: str, audience: str, *, qualified: bool = True, ts_ms: int = 1000) -> None:
        key = IDENTIFIERS.key(IDENTIFIERS.kinds[identifier], value)
        of_key = self.decisions.setdefault(key, {})
        of_key[audience] = max(of_key.get(audience, 0), v_of(ts_ms, qualified))

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        if self.failure is not None:
            raise self.failure
        found = self.decisions.get(key, {})
        return [found.get(audience) for audience in audiences]

    def size(self, audience: str) -> int:
        if self.failure is not None:
            raise self.failure
        versions = [found[audience] for found in self.decisions.values() if audience in found]
        return sum(map(is_qualified, versions))


class FakeCatalog:
    """Segments as a dict."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}

    @property
    def segments(self) -> Mapping[str, Segment]:
        return self._segments

    def segment_ids(self) -> Sequence[str]:
        return sorted(self._segments)

    def define(self, name: str, audience: str, revision: int = 1, **more: Any) -> None:
        definition = SegmentDefinition(external_audience_id=audience, **more)
        self._segments[name] = Segment(segment_id=name, revision=revision, definition=definition, updated_ms=0)

    def drop(self, name: str) -> None:
        del self._segments[name]


class Reads:
    """How queries are executed now."""

    is_awaited = False


READS = Reads()


def answered(engine: GraphQLEngine, store: FakeStore, request: GraphQLRequest) -> GraphQLAnswer:
    """The answer for a public key, from the store itself or from one like it that has to be waited for."""
    if not READS.is_awaited:
        return engine.execute(request, right="public")
    reads = AwaitedReads(AwaitedFake(store), None, 1)
    return trio.run(partial(engine.execute_awaited, request, right="public", reads=reads))


class World:
    """An engine, and what it reads."""

    def __init__(self, *, identifier_names: Sequence[str] = (), **settings: Any) -> None:
        """identifier_names: high-confidence ones instead of those above."""
        kinds = [IdentifierKind(name, Confidence.HIGH, number) for number, name in enumerate(identifier_names)]
        self.identifiers = IdentifierSchema(kinds) if kinds else IDENTIFIERS
        self.store = FakeStore()
        self.catalog = FakeCatalog()
        store: MembershipReader = self.store
        catalog: SegmentReader = self.catalog
        self.engine = GraphQLEngine(store, catalog, self.identifiers, GraphQLSettings(**settings))

    def ask(
        self, query: str, variables: dict[str, Any] | None = None, operation_name: str | None = None
    ) -> GraphQLAnswer:
        request = GraphQLRequest(query=query, variables=variables, operation_name=operation_name)
        return answered(self.engine, self.store, request)

    def data(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """The data of a query that must succeed."""
        answer = self.ask(query, variables)
        assert answer.kind == "success", answer.body
        assert list(answer.body) == ["data"]
        data: dict[str, Any] = answer.body["data"]
        return data

    def errors(self, query: str, variables: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The errors of a query that must have some, every one in the right shape."""
        answer = self.ask(query, variables)
        assert answer.kind != "success", answer.body
        assert ("data" in answer.body) == (answer.kind == "field_errors")
        errors: list[dict[str, Any]] = answer.body["errors"]
        assert errors
        for error in errors:
            assert set(error["extensions"]) == {"code", "classification"}
            assert error["message"].encode()
            assert all(isinstance(step, str) for step in error.get("path", []))
        return errors

    def code(self, query: str, variables: dict[str, Any] | None = None) -> str:
        """The code of the first error."""
        code: str = self.errors(query, variables)[0]["extensions"]["code"]
        return code


def shop() -> World:
    """Three segments a, b, c on the audiences A, B, C; u-1 is in A and C, was in B."""
    world = World()
    world.catalog.define("a", "A", revision=3, description="first", metadata={"team": "x"})
    world.catalog.define("b", "B")
    world.catalog.define("c", "C")
    world.store.decide("fs_user_id", "u-1", "A", ts_ms=1_700_000_000_123)
    world.store.decide("fs_user_id", "u-1", "B", qualified=False, ts_ms=2_000)
    world.store.decide("fs_user_id", "u-1", "C", ts_ms=3_000)
    world.store.decide("fs_user_id", "u-2", "A")
    world.store.decide("email", "Ann@Example.org", "A")
    return world
