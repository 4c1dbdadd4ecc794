"""Jobs on their way to the owners of their slots, repeated until they are done or too late.

An actor for each owner: it takes what waits for the slots that it owns, sends it as one batch, and looks at the
answers. What a server could not do now (moved, migrating, loading, no replicas, no connection) is sent again, wherever
the slot is then. That is safe, because everything that is sent may be repeated.

Invariants: (1) a job that is *durable* is answered only after its batch was followed by a write and a WAIT that enough
replicas have answered, on the same connection; (2) jobs are sent by these tasks alone, so whoever waits may give up
without a command being cut off; (3) a job ends: with its answers, or with StoreUnavailable after its deadline.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
import trio
from coredis.exceptions import AskError, MovedError

from segmentd.cluster.batches import RETRY_REASONS, Durability, Job, job_of
from segmentd.cluster.layout import Layout, Owner
from segmentd.cluster.link import Address, Answers, Command, Link, LinkDownError
from segmentd.cluster.servers import Servers
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PAUSE_SECONDS_MAX: Final = 0.5
UNKNOWN: Final = "Whether it will show is unknown; sending the identical request again is right in both cases."
_LATE_LOOK_SECONDS: Final = 0.1
STALE: Final = "SEGMENTD_STALE"
_NOT_LOADED: Final = "function not found"
_NOT_LISTED: Final = frozenset({"MovedError", "TryAgainError", "ClusterDownError", "ReadOnlyError"})
"""Refusals that are a part of any change of the cluster; all others are logged once."""


class Dispatcher:
    """`submit` from anywhere on the loop, `run` as its task."""

    def __init__(
        self,
        servers: Servers,
        use: str,
        *,
        durability: Durability | None,
        batch_weight_max: int,
        load: Callable[[Link], Awaitable[None]],
        refresh: Callable[[], Awaitable[None]],
        retry_after_seconds: int,
    ) -> None:
        """use: names the links. load: gives a server the functions. refresh: gets the newest registry."""
        self._servers = servers
        self._use = use
        self._durability = durability
        self._batch_weight_max = batch_weight_max
        self._load = load
        self._refresh = refresh
        self._retry_after_seconds = retry_after_seconds
        self._waiting: defaultdict[int, deque[Job]] = defaultdict(deque)
        self._wakes: dict[str, trio.Event] = {}
        self._serving: set[str] = set()
        self._nursery: trio.Nursery | None = None
        self._told: set[str] = set()
        """Kinds of refusals that were logged; their texts may differ without end."""
        self.retries = dict.fromkeys(RETRY_REASONS, 0)
        """How many times a job was sent again, or given up, by reason."""
        self.held: set[int] = set()
        """Slots whose jobs wait until a new owner has what the old one may have lost; see `recovery`."""
        servers.on_layout.append(self._layout_changed)

    def submit(self, job: Job, *, first: bool = False) -> None:
        """Send it, as soon as its slot's owner can take it. first: before all that waits."""
        if first:
            self._waiting[job.slot].appendleft(job)
        else:
            self._waiting[job.slot].append(job)
        self._wake(job.slot)

    async def call(self, slot: int, commands: Sequence[Command], deadline: float) -> Answers:
        """The answers of the slot's owner, which may still be behind. Raises StoreUnavailable."""
        self.submit(job := job_of(slot, commands, deadline, weight=0))
        return await job.reply.wait()

    def release(self, slots: set[int]) -> None:
        """The owners of these slots have everything."""
        self.held -= slots
        for slot in slots:
            self._wake(slot)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._layout_changed(self._servers.layout)
            while True:
                await trio.sleep(_LATE_LOOK_SECONDS)
                self._end_late()

    def _layout_changed(self, _layout: Layout) -> None:
        if self._nursery is None:
            return
        for node_id in self._servers.layout.primaries.keys() - self._serving:
            self._serving.add(node_id)
            self._wakes[node_id] = trio.Event()
            self._nursery.start_soon(self._serve, node_id)
        # Those that own nothing any more end, and what they had in hand is sent to whoever owns the slot now.
        for wake in self._wakes.values():
            wake.set()

    def _wake(self, slot: int) -> None:
        owner = self._servers.owner_of(slot)
        if owner is not None and (wake := self._wakes.get(owner.node_id)) is not None:
            wake.set()

    async def _serve(self, node_id: str) -> None:
        """The actor of one owner, for as long as it owns anything."""
        while (owner := self._servers.layout.primaries.get(node_id)) is not None:
            jobs = self._take(owner)
            if jobs:
                await self._send(owner, jobs)
                continue
            wake = self._wakes[node_id] = trio.Event()
            await wake.wait()
        self._serving.discard(node_id)
        self._wakes.pop(node_id, None)

    def _take(self, owner: Owner) -> list[Job]:
        taken: list[Job] = []
        weight = 0
        for slot, jobs in self._waiting.items():
            if not jobs or self._servers.owner_of(slot) != owner:
                continue
            held: list[Job] = []
            while jobs and weight < self._batch_weight_max:
                job = jobs.popleft()
                if job.weight and slot in self.held:
                    held.append(job)
                    continue
                taken.append(job)
                weight += job.weight
            jobs.extendleft(reversed(held))
        return taken

    async def _send(self, owner: Owner, jobs: list[Job]) -> None:
        """One batch, and what is to be done about its answers."""
        batches: list[tuple[Job, list[Command]]] = []
        for job in jobs:
            try:
                commands = list(job.commands())
            except StoreUnavailable as refusal:
                job.reply.fail(refusal)
                continue
            if commands:
                batches.append((job, commands))
            else:
                job.reply.set([])
        if not batches:
            return
        link = self._servers.link(owner.address, self._use)
        sent = [command for _, commands in batches for command in commands]
        tail = [] if self._durability is None else self._durability.commands([job.slot for job, _ in batches])
        try:
            answers = await link.call([*sent, *tail])
        except LinkDownError as error:
            self._servers.suspect()
            for job, _ in batches:
                self._again(job, str(error), "link")
            return
        unsafe = None if self._durability is None else self._durability.problem(answers[len(sent) :])
        self._settle(batches, answers, unsafe, link)

    def _settle(
        self, batches: list[tuple[Job, list[Command]]], answers: Answers, unsafe: str | None, link: Link
    ) -> None:
        """Each job once: it is answered, or is on its way again when this returns."""
        stale: list[Job] = []
        unloaded: list[Job] = []
        at = 0
        for job, commands in batches:
            its = answers[at : at + len(commands)]
            at += len(commands)
            error = _first_error(its)
            asked = sum(map(_is_ask, its))
            if asked and (unsafe is None or asked == len(its)):
                self._start(self._ask, job, commands, its, link)
            elif error is None and unsafe is None:
                job.reply.set(its)
            elif error is None:
                self._again(job, str(unsafe), "replicas")
            elif STALE in str(error):
                stale.append(job)
            elif _NOT_LOADED in str(error).lower():
                unloaded.append(job)
            else:
                self._refused(job, error, link)
        # Not here: what refreshes may have to write through this very task, and loading takes a while.
        if stale:
            self._start(self._refreshed, stale)
        if unloaded:
            self._start(self._loaded, unloaded, link)

    def _refused(self, job: Job, error: Exception, link: Link) -> None:
        is_moved = isinstance(error, MovedError)
        if is_moved:
            self._servers.suspect()
        kind = type(error).__name__
        if kind not in _NOT_LISTED and kind not in self._told:
            self._told.add(kind)
            log.warning("a server of the cluster refuses; trying again", server=str(link.address), reason=str(error))
        self._again(job, str(error), "moved" if is_moved else "refused")

    async def _ask(self, job: Job, commands: list[Command], answers: Answers, link: Link) -> None:
        """The slot is moving; what its owner has no more is asked for where it moves to, and nothing else is.

        Keys that are not there yet would seem to be empty there.
        """
        places = [at for at, answer in enumerate(answers) if _is_ask(answer)]
        error: AskError = answers[places[0]]
        target = self._servers.link(Address(error.host or link.address.host, error.port), self._use)
        *marks, wait = ((),) if self._durability is None else self._durability.commands([job.slot])
        wanted = [*(commands[at] for at in places), *marks]
        sent = [part for command in wanted for part in ((b"ASKING",), command)]
        try:
            got = await target.call([*sent, wait] if wait else sent)
        except LinkDownError as down:
            self._again(job, str(down), "link")
            return
        theirs = got[1 : len(sent) : 2]
        for at, answer in zip(places, theirs, strict=False):
            answers[at] = answer
        failed = _first_error(answers)
        if failed is not None and _NOT_LOADED in str(failed).lower():
            await self._loaded([job], target)
        elif failed is not None:
            self._again(job, str(failed), "asked")
        elif self._durability is not None and (
            unsafe := self._durability.problem([*theirs[len(places) :], *got[len(sent) :]])
        ):
            self._again(job, unsafe, "replicas")
        else:
            job.reply.set(answers)

    async def _loaded(self, jobs: list[Job], link: Link) -> None:
        reason = f"{link.address} did not have the functions"
        try:
            await self._load(link)
        except LinkDownError as down:
            reason = str(down)
        for job in jobs:
            self._again(job, reason, "functions")

    def _again(self, job: Job, reason: str, kind: str) -> None:
        """After a pause that grows, or never if it is too late. kind: one of RETRY_REASONS."""
        self.retries[kind] += 1
        job.reason = reason
        if trio.current_time() + job.pause >= job.deadline:
            self._fail(job)
            return
        self._start(self._later, job)

    def _start(self, task: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        assert self._nursery is not None  # noqa: S101  # answers come while `run` runs
        self._nursery.start_soon(task, *arguments)

    async def _refreshed(self, jobs: list[Job]) -> None:
        reason = "other nodes change the registry all the time"
        try:
            await self._refresh()
        except StoreUnavailable as refusal:
            reason = refusal.message
        for job in jobs:
            self._again(job, reason, "stale")

    async def _later(self, job: Job) -> None:
        await trio.sleep(job.pause)
        job.pause = min(2 * job.pause, _PAUSE_SECONDS_MAX)
        self.submit(job, first=True)

    def _end_late(self) -> None:
        now = trio.current_time()
        late: list[Job] = []
        for slot, jobs in self._waiting.items():
            if any(job.deadline <= now for job in jobs):
                late += [job for job in jobs if job.deadline <= now]
                self._waiting[slot] = deque(job for job in jobs if job.deadline > now)
        # Last: whoever hears of it may submit something else.
        for job in late:
            self._fail(job)

    def _fail(self, job: Job) -> None:
        message = f"The cluster has not done it in time: {job.reason}. {UNKNOWN}"
        job.reply.fail(StoreUnavailable(message, self._retry_after_seconds))


def _first_error(answers: Answers) -> Exception | None:
    return next((answer for answer in answers if isinstance(answer, Exception)), None)


def _is_ask(answer: Any) -> bool:
    return isinstance(answer, AskError) and not isinstance(answer, MovedError)
