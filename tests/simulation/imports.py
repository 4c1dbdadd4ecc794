"""Clients that send whole lists: several at the same time, good and bad ones, cancelled, forced, as dry runs.

What an import does to one membership is up to three things (`PARTS`), each at its own moment. An import that was taken
goes on after a crash, so these are under way until the job has ended.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import trio

from segmentd.domain.importjob import ImportJob
from segmentd.domain.membership import v_of
from segmentd.domain.refusals import Refusal, StoreUnavailable
from segmentd.runtime.importuploads import ImportWish
from tests.simulation.life import IDENTIFIER, Life
from tests.simulation.promises import AUDIENCES, PEOPLE, CellAct, Promises, decided, floor_raised, swept
from tests.simulation.worlds import BrokenPromiseError

PARTS: Final = ("list", "floor", "sweep")
_UNCHANGED: Final = "nothing was changed"


@dataclass
class Sent:
    """A list that was sent."""

    audience: str
    listed: list[str]
    parts: list[str]
    """The requests that stand for its parts; none for a dry run or a list that cannot be read."""
    taken: bool = False
    """Whether the client was told that it will be done."""
    cancelled: bool = False
    """Whether a client was told that it was cancelled."""
    over: bool = False


class ImportClients:
    """All of them, through all lives."""

    def __init__(self, promises: Promises, people: Callable[[], list[str]], name: Callable[[str], str]) -> None:
        """people: who may be listed now. name: a name for a new request."""
        self._promises = promises
        self._people = people
        self._name = name
        self._sent: dict[str, Sent] = {}

    def going_on(self) -> set[str]:
        """The parts of all imports that have not ended."""
        return {part for sent in self._sent.values() if not sent.over for part in sent.parts}

    def is_listed(self, who: str) -> bool:
        """Whether a list with `who` in it may be on disk."""
        return any(who in sent.listed and not sent.over for sent in self._sent.values())

    async def send(self, life: Life) -> None:
        """Send a list."""
        chance, request = life.machine.chance, self._name("import")
        now = life.machine.now_ms()
        known = self._people()
        listed = chance.random.sample(known, chance.random.randint(1, len(known)))
        # A ghost is never spoken of in the future, because that would outlast its being forgotten.
        ahead_ms = 500 if set(listed) <= set(PEOPLE) else 0
        as_of_ms = now + chance.pick((-2000, -1000, -1000, 0, 0, ahead_ms))
        dry_run, unreadable = chance.one_in(8), chance.one_in(12)
        audience = chance.pick(AUDIENCES)
        acts = {} if dry_run or unreadable else self._acts(request, audience, listed, as_of_ms)
        self._sent[request] = sent = Sent(audience, listed, list(acts))
        for part, of_cells in acts.items():
            self._promises.begin(part, of_cells)
        wish = ImportWish(
            audience_id=audience,
            source=request,
            as_of_ms=as_of_ms,
            dry_run=dry_run,
            force=not chance.one_in(3),
        )
        life.machine.say("begins", request, audience, as_of_ms, *listed)
        try:
            await life.imports.uploads.take(wish, _chunks(life, "nonsense\n" if unreadable else _file(listed)))
        except Refusal as refusal:
            if life.dead:
                return
            life.machine.say("refused", request, type(refusal).__name__)
            # Where the disk fails while the job is noted, the next start tells whether it was.
            if type(refusal) is not StoreUnavailable:
                self._over(sent, self._promises.refused)
            return
        if not life.dead:
            life.machine.say("taken", request)
            sent.taken = True

    async def cancel(self, life: Life) -> None:
        """Cancel a list that is on its way."""
        jobs = [job for job in life.imports.jobs.newest_first() if not job.is_ended]
        if not jobs:
            return
        job = life.machine.chance.pick(jobs)
        cancelled = await life.imports.importer.cancel(job)
        if not life.dead:
            life.machine.say("cancelled", job.source, cancelled)
            self._sent[job.source].cancelled |= cancelled

    def follow(self, life: Life, *, started: bool = False) -> None:
        """See which imports have ended. started: this is a start, so what is known is on disk.

        Raises BrokenPromiseError.
        """
        if life.dead:
            return
        jobs = {job.source: job for job in life.imports.jobs.newest_first()}
        for request, sent in self._sent.items():
            job = jobs.get(request)
            if job is None and sent.taken:
                raise BrokenPromiseError(f"{request} was taken, and there is no such job")
            if job is not None and sent.cancelled and job.state != "cancelled":
                raise BrokenPromiseError(f"{request} was cancelled, and is {job.state}")
            if sent.over:
                continue
            if job is None:
                if started:
                    self._over(sent, self._promises.refused)
            elif job.is_ended:
                self._end(sent, job, started)

    def _end(self, sent: Sent, job: ImportJob, started: bool) -> None:
        if job.reason is not None and _UNCHANGED in job.reason:
            self._over(sent, self._promises.refused)
        elif job.state == "completed":
            self._over(sent, self._promises.done)
        elif started and job.state == "cancelled":
            for part in sent.parts:
                (self._promises.ended if part.endswith(PARTS[0]) else self._promises.refused)(part)
            sent.over = True
        elif started:
            self._over(sent, self._promises.ended)

    def _over(self, sent: Sent, tell: Callable[[str], None]) -> None:
        sent.over = True
        for part in sent.parts:
            tell(part)

    def _acts(
        self, request: str, audience: str, listed: list[str], as_of_ms: int
    ) -> dict[str, dict[tuple[str, str], CellAct]]:
        """part → what it does to each membership."""
        floor = v_of(as_of_ms, True)
        places = [place for place in self._promises.cells if place[1] == audience]
        whole = {
            PARTS[0]: {place: decided(floor) for place in places if place[0] in listed},
            PARTS[1]: {place: floor_raised(floor) for place in places},
            PARTS[2]: {place: swept(floor) for place in places if place[0] not in listed},
        }
        return {f"{request}:{part}": acts for part, acts in whole.items()}


def _file(listed: list[str]) -> str:
    return f"{IDENTIFIER}\n" + "".join(f"{who}\n" for who in [*listed, listed[0]])


async def _chunks(life: Life, text: str) -> AsyncIterator[bytes]:
    half = len(text) // 2
    for chunk in (text[:half], text[half:]):
        await trio.sleep(life.machine.chance.delay())
        yield chunk.encode()
