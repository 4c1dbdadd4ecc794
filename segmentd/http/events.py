"""`POST /v3/events`: events in, 202 when every one of them is on disk and visible.

Owns the reading of the upload's form and the 202. The meaning of an event is the domain's, its durability the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from segmentd.http.routing import AtOnce, Later
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.mailbox import Reply
from segmentd.settings import LimitsSettings
from segmentd.telemetry import Telemetry

AT_ONCE_BYTES_MAX: Final = 4_096
_ACCEPTED: Final = (JSON_TYPE, *NDJSON_TYPES)


# A body of some dozens of events; a larger one takes long enough to be parsed that thousands must take turns.
LARGE_BODY_BYTES: Final = 8_192


class Applies(Protocol):
    """What this needs of the store."""

    def check_room(self) -> None:
        """Raises what `apply` would raise now because too much waits."""

    def submit(self, changes: Sequence[Change]) -> Reply[None]:
        """See `segmentd.runtime.seam.MembershipStore`."""


class Submitted(Later, frozen=True):
    """An upload on its way to disk."""

    done: Reply[None]


class EventsApi:
    """Takes uploads of events."""

    def __init__(
        self,
        store: Applies,
        rules: EventRules,
        limits: LimitsSettings,
        telemetry: Telemetry,
        clock: Callable[[], float],
        interludes: Interludes,
    ) -> None:
        """clock: seconds since the epoch; the time of receipt is the `ts` of events that have none.

        interludes: who is to have a turn while a large upload is read.
        """
        self._store = store
        self._rules = rules
        self._telemetry = telemetry
        self._clock = clock
        self._between = interludes
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
                begun = self.begin(request)
        else:
            begun = self.begin(request)
        if isinstance(begun, Answer):
            return begun
        try:
            await begun.done.wait()
        except Exception as failure:  # noqa: BLE001  # raised there again, after what was counted is taken back
            return begun.answer(failure)
        return begun.answer(None)

    @property
    def at_once(self) -> AtOnce:
        """What a POST that is small is answered with."""
        return AtOnce(may_wait, self.begin)

    def begin(self, request: Request) -> Answer | Submitted:
        """As `post`, without the waiting."""
        parsed = self._parse(request)
        quota = None if request.key is None or request.key.quotas is None else request.key.quotas.events
        charge(quota, parsed.qualify + parsed.disqualify + parsed.dropped)
        if not parsed.changes:
            return self._accepted(parsed)
        try:
            done = self._store.submit(parsed.changes)
        except Refusal:
            self._refused(parsed, quota)
            raise
        return Submitted(done, partial(self._answer, parsed, quota))

    def _answer(self, parsed: ParsedEvents, quota: Quota | None, failure: Exception | None) -> Answer:
        if failure is None:
            return self._accepted(parsed)
        self._refused(parsed, quota)
        raise failure

    def _accepted(self, parsed: ParsedEvents) -> Answer:
        count = self._telemetry.counted_events
        count("qualify", "accepted", parsed.qualify)
        count("disqualify", "accepted", parsed.disqualify)
        count("other", "dropped", parsed.dropped)
        return Answer(202, b'{"title":"Accepted","status":202,"timestamp":"%b"}' % timestamp(self._clock()).encode())

    def _parse(self, request: Request) -> ParsedEvents:
        media_type, body = bodies.read(request, self._bodies)
        try:
            return parse_events(
                body,
                ndjson=media_type != JSON_TYPE,
                rules=self._rules,
                now_ms=int(self._clock() * 1000),
                between=self._between,
            )
        except InvalidEvents as refusal:
            named = len({invalid.event for invalid in refusal.invalids})
            self._telemetry.counted_events("unknown", "invalid", named)
            raise

    def _refused(self, parsed: ParsedEvents, quota: Quota | None) -> None:
        if quota is not None:
            quota.give_back(parsed.qualify + parsed.disqualify + parsed.dropped)
        self._telemetry.counted_events("qualify", "refused", parsed.qualify)
        self._telemetry.counted_events("disqualify", "refused", parsed.disqualify)


def may_wait(request: Request) -> bool:
    """Whether an upload takes so long to parse that others must get a turn between two of its kind."""
    return len(request.body) > AT_ONCE_BYTES_MAX or "content-encoding" in request.headers
