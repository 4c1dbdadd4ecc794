"""One run: a seed, a few lives of the server, clients all the while, a crash or a stop after each, and a last look."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.simulation.chance import Trace
from tests.simulation.clients import Clients
from tests.simulation.life import Life
from tests.simulation.looks import look, look_as_published, look_at_files, look_at_marks, look_for_bytes
from tests.simulation.machine import Machine
from tests.simulation.promises import Promises

LIVES_MAX: Final = 4
REQUESTS_MAX: Final = 14
"""Of one life."""
_SETTLE_SECONDS_MAX: Final = 5_000
_DISK_STEPS_MAX: Final = 60
_PLACE: Final = Path("/dev/shm")  # noqa: S108  # memory where there is any; only speed depends on it


class Outcome(msgspec.Struct):
    """What a run has shown."""

    seed: int
    digest: str
    """Of everything that happened; the same seed gives the same one."""
    faults: Counter[str]
    lives: int
    requests: int
    virtual_seconds: float
    lines: list[str] | None = None


class SimulationError(AssertionError):
    """A promise was broken, or the program failed. The message says how to see it again."""


def command_of(seed: int) -> str:
    """What replays a seed exactly."""
    return f"python -m tests.simulation --seed {seed}"


def simulate(
    seed: int, *, keep: bool = False, bug: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Outcome:
    """Run one seed. keep: the trace as text as well. bug: a mistake to put into the program meanwhile.

    Raises SimulationError.
    """
    trace = Trace(keep=keep)
    with tempfile.TemporaryDirectory(dir=_PLACE if _PLACE.is_dir() else None) as place:
        machine = Machine(seed, Path(place), trace)
        run = Run(machine)
        try:
            with machine.instead_of_this_one(), bug():
                trio.run(run.all_lives, clock=machine.clock)
        except Exception as error:
            told = "\n".join([*(trace.lines or [])[-60:], _reason(error)])
            raise SimulationError(f"seed {seed}: {told}\nreplay: {command_of(seed)}") from error
    return Outcome(
        seed=seed,
        digest=trace.digest(),
        faults=machine.chance.counted,
        lives=run.lives,
        requests=run.clients.requests,
        virtual_seconds=machine.seconds(),
        lines=trace.lines,
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_reason, error.exceptions))
    return f"{type(error).__name__}: {error}"


class Run:
    """Lives, one after the other."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._chance = machine.chance
        self._promises = Promises()
        self.clients = Clients(self._promises)
        self.lives = 0

    async def all_lives(self) -> None:
        """Everything."""
        folder = self._machine.place / "0"
        folder.mkdir()
        for number in range(self._chance.random.randint(1, LIVES_MAX)):
            folder = await self._one_life(folder, self._machine.place / str(number + 1), self._under_load)
        await self._one_life(folder, self._machine.place / "none", self._in_peace)

    async def _one_life(self, folder: Path, next_folder: Path, act: Callable[[Life], object]) -> Path:
        """Returns the folder for the next life."""
        self.lives += 1
        self._machine.say("life", self.lives)
        life = Life(self._machine, folder, next_folder, self._life_ended)
        life.followers.published = partial(look_as_published, life, self._promises)
        if act == self._under_load and not self._chance.one_in(3):
            self._machine.disk.crash_after = self._chance.random.randrange(_DISK_STEPS_MAX)
        await life.live(act)  # type: ignore[arg-type]
        if life.dead:
            return next_folder
        self._life_ended()
        self._chance.counted["restart"] += act == self._under_load
        return folder

    def _life_ended(self) -> None:
        self._promises.life_ended(self.clients.imports.going_on())

    def _look(self, life: Life, *, started: bool = False) -> None:
        if not life.dead:
            self.clients.imports.follow(life, started=started)
            if started:
                # The marks settle what is seen of the rest.
                look_at_marks(life, self._promises)
            look(life, self._promises)

    async def _under_load(self, life: Life) -> None:
        """Requests, one after the other and at the same time, and perhaps a crash at some moment."""
        self._look(life, started=True)
        look_at_files(life)
        look_for_bytes(life, self.clients.forgotten_for_good(life))
        self._chance.armed = not life.dead
        async with trio.open_nursery() as nursery:
            for _ in range(self._chance.random.randrange(REQUESTS_MAX)):
                nursery.start_soon(self._client, life)
                if not self._chance.one_in(3):
                    await trio.sleep(self._chance.random.choice((0.0, 0.001, 0.01, 0.3)))
                self._look(life)
            if self._chance.one_in(3):
                await trio.sleep(self._chance.random.choice((0.0, 0.001, 0.005, 0.02, 1.0)))
                life.crash()
        self._look(life)
        look_at_marks(life, self._promises)
        if self._chance.one_in(3):
            await trio.sleep(self._chance.random.choice((0.01, 0.3, 10)))
            self._look(life)
            look_for_bytes(life, self.clients.forgotten_for_good(life))

    async def _client(self, life: Life) -> None:
        gone_after = self._chance.random.uniform(0, 0.02) if self._chance.strikes("client_gone") else math.inf
        self._machine.set_clock()
        with trio.move_on_after(gone_after):
            await self.clients.act(life)()

    async def _in_peace(self, life: Life) -> None:
        """Without faults everything that was begun comes to its end, and the store is clean."""
        self._look(life, started=True)
        look_at_files(life)
        with trio.fail_after(_SETTLE_SECONDS_MAX):
            await life.imports.jobs.settled()
            while not self._is_quiet(life):  # noqa: ASYNC110  # several things end, and nothing tells of all
                await trio.sleep(1)
        self._look(life)
        await life.reader.settled()
        await self.clients.read_members(life)
        look_at_files(life)
        look_for_bytes(life, self.clients.forgotten_for_good(life))
        await self.clients.events(life)
        self._look(life)
        look_at_marks(life, self._promises)

    def _is_quiet(self, life: Life) -> bool:
        swept = all(deletion.is_complete for deletion in life.store._audiences.deletions.values())
        return swept and all(job.state == "completed" for job in life.forgetting._jobs.values())
