"""`POST /v3/events`: events in, 202 when every one of them is on disk and visible.

Owns the reading of the upload's form and the 202. The meaning of an event is the domain's, its durability the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from segmentd.domain.events import Change, EventRules, ParsedEvents, parse_events
from segmentd.domain.refusals import InvalidEvents, Refusal
from segmentd.http import bodies
from segmentd.http.bodies import JSON_TYPE, NDJSON_TYPES, BodyRules
from segmentd.http.edge import charge
from segmentd.http.errors import timestamp
from segmentd.http.exchange import Answer, Request
from segmentd.http.ratelimits import Quota
from segmentd.settings import LimitsSettings
from segmentd.telemetry import Telemetry

_ACCEPTED: Final = (JSON_TYPE, *NDJSON_TYPES)


# A body of some dozens of events; a larger one takes long enough to be parsed that thousands must take turns.
LARGE_BODY_BYTES: Final = 8_192


class Applies(Protocol):
    """What this needs of the store."""

    def check_room(self) -> None:
        """Raises what `apply` would raise now because too much waits."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """See `segmentd.runtime.store.MembershipStore`."""


class EventsApi:
    """Takes uploads of events."""

    def __init__(
        self,
        store: Applies,
        rules: EventRules,
        limits: LimitsSettings,
        telemetry: Telemetry,
        clock: Callable[[], float],
    ) -> None:
        """clock: seconds since the epoch; the time of receipt is the `ts` of events that have none."""
        self._store = store
        self._rules = rules
        self._telemetry = telemetry
        self._clock = clock
        self._turn = trio.Lock()
        self._bodies = BodyRules(
            accepted=_ACCEPTED,
            # The oldest SDKs and many scripts name no type.
            missing=JSON_TYPE,
            inflated_bytes_max=limits.events_inflated_bytes_max,
            limit_name="events_inflated_bytes_max",
        )

    async def post(self, request: Request) -> Answer:
        """202, or a refusal after which nothing of the request was applied."""
        if len(request.body) > LARGE_BODY_BYTES:
            # One in each turn of the loop, so that a crowd holds up no query; and none that would be refused anyway.
            # How many may wait is bounded by [limits] bodies_bytes_max.
            async with self._turn:
                self._store.check_room()
                parsed = self._parse(request)
        else:
            parsed = self._parse(request)
        quota = None if request.key is None or request.key.quotas is None else request.key.quotas.events
        charge(quota, parsed.qualify + parsed.disqualify + parsed.dropped)
        if parsed.changes:
            await self._apply(parsed, quota)
        count = self._telemetry.counted_events
        count("qualify", "accepted", parsed.qualify)
        count("disqualify", "accepted", parsed.disqualify)
        count("other", "dropped", parsed.dropped)
        return Answer(202, b'{"title":"Accepted","status":202,"timestamp":"%b"}' % timestamp(self._clock()).encode())

    def _parse(self, request: Request) -> ParsedEvents:
        media_type, body = bodies.read(request, self._bodies)
        try:
            return parse_events(
                body, ndjson=media_type != JSON_TYPE, rules=self._rules, now_ms=int(self._clock() * 1000)
            )
        except InvalidEvents as refusal:
            named = len({invalid.event for invalid in refusal.invalids})
            self._telemetry.counted_events("unknown", "invalid", named)
            raise

    async def _apply(self, parsed: ParsedEvents, quota: Quota | None) -> None:
        try:
            await self._store.apply(parsed.changes)
        except Refusal:
            if quota is not None:
                quota.give_back(parsed.qualify + parsed.disqualify + parsed.dropped)
            self._telemetry.counted_events("qualify", "refused", parsed.qualify)
            self._telemetry.counted_events("disqualify", "refused", parsed.disqualify)
            raise
