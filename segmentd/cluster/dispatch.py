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
from coredis.exceptions import AskError, MovedError, RedisError

from segmentd.cluster.batches import Durability, Job, job_of
from segmentd.cluster.layout import Layout, Owner
from segmentd.cluster.link import Address, Answers, Command, Link, LinkDownError
from segmentd.cluster.servers import Servers
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PAUSE_SECONDS_MAX: Final = 0.5
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
        job = job_of(slot, commands, deadline, weight=0)
        self.submit(job)
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
        batches = [(job, list(job.commands())) for job in jobs]
        for job, commands in batches:
            if not commands:
                job.reply.set([])
        batches = [(job, commands) for job, commands in batches if commands]
        if not batches:
            return
        try:
            await self._exchange(self._servers.link(owner.address, self._use), batches)
        except LinkDownError as error:
            self._servers.suspect()
            for job, _ in batches:
                self._again(job, str(error))

    async def _exchange(self, link: Link, batches: list[tuple[Job, list[Command]]]) -> None:
        """Raises LinkDownError."""
        sent = [command for _, commands in batches for command in commands]
        tail = [] if self._durability is None else self._durability.commands(batches[0][0].slot)
        answers = await link.call([*sent, *tail])
        unsafe = None if self._durability is None else self._durability.problem(answers[len(sent) :])
        at = 0
        for job, commands in batches:
            its = answers[at : at + len(commands)]
            at += len(commands)
            await self._settle(job, commands, its, unsafe, link)

    async def _settle(
        self, job: Job, commands: list[Command], answers: Answers, unsafe: str | None, link: Link
    ) -> None:
        error = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if error is None:
            if unsafe is None:
                job.reply.set(answers)
            else:
                self._again(job, unsafe)
            return
        if isinstance(error, AskError) and not isinstance(error, MovedError):
            await self._ask(job, commands, error)
            return
        if isinstance(error, MovedError):
            self._servers.suspect()
        elif STALE in str(error):
            # Not here: what refreshes may have to write through this very task.
            self._start(self._refreshed, job, str(error))
            return
        elif _NOT_LOADED in str(error).lower():
            await self._load(link)
        elif type(error).__name__ not in _NOT_LISTED and str(error) not in self._told:
            self._told.add(str(error))
            log.warning("a server of the cluster refuses; trying again", server=str(link.address), reason=str(error))
        self._again(job, str(error))

    async def _ask(self, job: Job, commands: list[Command], error: AskError) -> None:
        """The slot is moving and its keys are at the new owner's already."""
        link = self._servers.link(Address(error.host, error.port), self._use)
        asking = [part for command in commands for part in ((b"ASKING",), command)]
        wait = [] if self._durability is None else [self._durability.commands(job.slot)[-1]]
        try:
            answers = await link.call([*asking, *wait])
        except LinkDownError as down:
            self._again(job, str(down))
            return
        theirs = answers[1 : len(asking) : 2]
        failed = next((answer for answer in theirs if isinstance(answer, RedisError)), None)
        if failed is not None:
            if _NOT_LOADED in str(failed).lower():
                await self._load(link)
            self._again(job, str(failed))
        elif self._durability is not None and (unsafe := self._durability.problem([b"OK", answers[-1]])):
            self._again(job, unsafe)
        else:
            job.reply.set(theirs)

    def _again(self, job: Job, reason: str) -> None:
        """After a pause that grows, or never if it is too late."""
        job.reason = reason
        if trio.current_time() + job.pause >= job.deadline:
            self._fail(job)
            return
        self._start(self._later, job)

    def _start(self, task: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        assert self._nursery is not None  # noqa: S101  # answers come while `run` runs
        self._nursery.start_soon(task, *arguments)

    async def _refreshed(self, job: Job, reason: str) -> None:
        try:
            await self._refresh()
        except StoreUnavailable as refusal:
            reason = refusal.message
        self._again(job, reason)

    async def _later(self, job: Job) -> None:
        await trio.sleep(job.pause)
        job.pause = min(2 * job.pause, _PAUSE_SECONDS_MAX)
        self.submit(job, first=True)

    def _end_late(self) -> None:
        now = trio.current_time()
        for slot, jobs in self._waiting.items():
            if any(job.deadline <= now for job in jobs):
                for job in [job for job in jobs if job.deadline <= now]:
                    self._fail(job)
                self._waiting[slot] = deque(job for job in jobs if job.deadline > now)

    def _fail(self, job: Job) -> None:
        job.reply.fail(
            StoreUnavailable(
                f"The cluster has not done it in time: {job.reason}. Whether it will show is unknown; sending the"
                " identical request again is right in both cases.",
                self._retry_after_seconds,
            )
        )
