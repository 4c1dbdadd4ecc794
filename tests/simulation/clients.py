"""The clients: requests made by chance, and what each is told.

A client that goes away, or whose server crashes, is told nothing; what it asked for may happen or not.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from segmentd.domain.events import parse_events
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import InvalidEvents, Refusal, SegmentNotFound, StoreUnavailable
from segmentd.domain.segments import SegmentDefinition
from tests.simulation.backups import take_backup
from tests.simulation.imports import ImportClients
from tests.simulation.life import IDENTIFIER, Life
from tests.simulation.looks import look, look_at_members, marks_of
from tests.simulation.promises import (
    AUDIENCES,
    GHOSTS,
    MARKS,
    PEOPLE,
    SEGMENT_IDS,
    Promises,
    deleted,
    forgotten,
    put,
    removed,
)

TIMES_SECONDS = (-3, -2, -1, -1, 0, 0, 1, 2)
"""Of decisions, from now; few, so that many are equal."""


class Clients:
    """All clients of one run, through all its lives."""

    def __init__(self, promises: Promises) -> None:
        self.promises = promises
        self.ghosts = list(GHOSTS)
        """Those that nobody asked to be forgotten."""
        self.forgetting: dict[str, str | None] = {}
        """ghost → the request to forget it, None as long as nobody was told its id."""
        self.imports = ImportClients(promises, self.people, self.name)
        self.requests = 0

    def name(self, kind: str) -> str:
        """Of a new request."""
        self.requests += 1
        return f"{kind}-{self.requests}"

    def people(self) -> list[str]:
        """Who may be spoken of."""
        return [*PEOPLE, *self.ghosts]

    def act(self, life: Life) -> Callable[[], Awaitable[None]]:
        """One client, by chance."""
        weights = {
            self.events: 14,
            self.invalid_events: 1,
            self.imports.send: 3,
            self.imports.cancel: 1,
            self.put_segment: 2,
            self.delete_segment: 1,
            self.delete_audience: 1,
            self.forget: 1,
            self.read_members: 2,
            self.back_up: 1,
        }
        chosen = life.machine.chance.random.choices(list(weights), list(weights.values()))[0]
        return lambda: chosen(life)

    async def attempt(
        self, life: Life, request: str, work: Callable[[], Awaitable[Any]], answer: Callable[[Any], Any]
    ) -> None:
        """Make a request that the promises know of, and note what became of it."""
        life.machine.say("begins", request)
        try:
            told = answer(await work())
        except Refusal as refusal:
            self._told_refusal(life, request, refusal)
            return
        if not life.dead:
            life.machine.say("done", request, told)
            self.promises.done(request, told)
            look(life, self.promises)

    def _told_refusal(self, life: Life, request: str, refusal: Refusal) -> None:
        if life.dead:
            return
        life.machine.say("refused", request, type(refusal).__name__)
        # After a failed commit nobody knows; the reply says that writing has stopped.
        if life.store.failure() is None or not isinstance(refusal, StoreUnavailable):
            self.promises.refused(request)

    async def events(self, life: Life) -> None:
        """An upload of events for a few people, with its marks, in any order."""
        chance, request = life.machine.chance, self.name("events")
        now = life.machine.now_ms()
        # Each membership once: an upload is visible piece by piece until it is acknowledged.
        wanted: dict[tuple[str, str], int] = {}
        for _ in range(chance.pick((0, 1, 1, 2, 4))):
            who = chance.pick(self.people())
            # A ghost is never spoken of in the future, because that would outlast its being forgotten.
            times = [each for each in TIMES_SECONDS if each <= 0 or who in PEOPLE]
            ts = now // 1000 + chance.pick(times)
            wanted[who, chance.pick(AUDIENCES)] = v_of(ts * 1000, chance.pick((True, True, False)))
        self.promises.begin_events(request, wanted)
        marked = [(mark, MARKS, v_of(now // 1000 * 1000, True)) for mark in marks_of(request)]
        told = [*((who, audience, v) for (who, audience), v in wanted.items()), *marked]
        told += told[:1] if chance.one_in(4) else []
        chance.random.shuffle(told)
        body = json.dumps([_event(*each) for each in told]).encode()
        changes = parse_events(body, ndjson=False, rules=life.rules, now_ms=now).changes
        await self.attempt(life, request, lambda: life.store.apply(changes), lambda _: None)

    async def invalid_events(self, life: Life) -> None:
        """One invalid event among valid ones: nothing of it reaches the store."""
        request = self.name("invalid")
        self.promises.begin_events(request, {})
        now = life.machine.now_ms()
        told = [_event(mark, MARKS, v_of(now, True)) for mark in marks_of(request)]
        told.insert(1, {**told[0], "action": "perhaps"})
        try:
            parse_events(json.dumps(told).encode(), ndjson=False, rules=life.rules, now_ms=now)
        except InvalidEvents:
            self.promises.refused(request)
        else:
            raise AssertionError("an invalid event was taken")

    async def put_segment(self, life: Life) -> None:
        """Create a segment or point it elsewhere."""
        chance, request = life.machine.chance, self.name("put")
        segment_id, audience = chance.pick(SEGMENT_IDS), chance.pick(AUDIENCES)
        self.promises.begin_segment(request, segment_id, put(audience))
        await self.attempt(
            life,
            request,
            lambda: life.catalog.put(segment_id, SegmentDefinition(audience), None),
            lambda told: (told[0].revision, told[1]),
        )

    async def delete_segment(self, life: Life) -> None:
        """Delete a segment, which may not be there."""
        request, segment_id = self.name("remove"), life.machine.chance.pick(SEGMENT_IDS)
        self.promises.begin_segment(request, segment_id, removed)

        async def remove() -> bool:
            try:
                await life.catalog.delete(segment_id, None)
            except SegmentNotFound:
                return False
            return True

        await self.attempt(life, request, remove, lambda was_there: was_there)

    async def delete_audience(self, life: Life) -> None:
        """Delete an audience, which may not be there."""
        request, audience, now = self.name("delete"), life.machine.chance.pick(AUDIENCES), life.machine.now_ms()
        acts = {(who, name): deleted(v_of(now, True)) for who, name in self.promises.cells if name == audience}
        self.promises.begin(request, acts)
        life.machine.say("begins", request, audience)
        try:
            deletion = await life.store.delete_audience(audience, now)
        except Refusal as refusal:
            self._told_refusal(life, request, refusal)
            return
        if not life.dead:
            life.machine.say("done", request, deletion is not None)
            # Where there is no such audience, nothing is to be done.
            (self.promises.refused if deletion is None else self.promises.done)(request)
            look(life, self.promises)

    async def forget(self, life: Life) -> None:
        """Forget a person, and a ghost for good."""
        chance, request, now = life.machine.chance, self.name("forget"), life.machine.now_ms()
        names = [chance.pick(PEOPLE)]
        if self.ghosts and not chance.one_in(3):
            names.append(self.ghosts.pop())
            self.forgetting[names[-1]] = None
        self.promises.begin(request, {place: forgotten(now) for place in self.promises.cells if place[0] in names})
        keys = [life.key(who) for who in names]
        try:
            job = await life.forgetting.request("gdpr", keys, now)
        except StoreUnavailable:
            # It may have been carried out: the note of it failed, before or after.
            life.machine.say("unsure", request)
            return
        except Refusal:
            if not life.dead:
                self.promises.refused(request)
            return
        if not life.dead:
            life.machine.say("done", request)
            self.promises.done(request)
            self.forgetting.update((name, job.id) for name in names if name in GHOSTS)
            look(life, self.promises)

    async def read_members(self, life: Life) -> None:
        """Pages of members."""
        before = self.promises.versions()
        try:
            await life.reader.settled()
        except StoreUnavailable:
            return
        if not life.dead:
            look_at_members(life, self.promises, before)

    async def back_up(self, life: Life) -> None:
        """Copy the store."""
        await take_backup(life, self.promises, self.name("backup"))

    def forgotten_for_good(self, life: Life) -> set[str]:
        """The ghosts whose requests are complete."""
        done = set()
        for ghost, job_id in self.forgetting.items():
            job = None if job_id is None else life.forgetting.get(job_id)
            if job is not None and job.state == "completed" and not self.imports.is_listed(ghost):
                done.add(ghost)
        return done


def _event(who: str, audience: str, v: int) -> dict[str, Any]:
    return {
        "type": "passthrough",
        "action": "disqualify" if v & 1 else "qualify",
        "identifiers": {IDENTIFIER: who},
        "data": {"audience_id": audience, "ts": (v >> 1) / 1000},
    }
