"""What clients were told, and so what must be seen: by whoever looks, after every restart, and in every copy.

Pure: knows what the contract says of events, whole lists, deletions, forgetting and segments, and nothing of how.

Every upload of events carries two *marks*, events for identifiers that nothing else ever touches. After a restart they
tell whether it was applied; one mark without the other is half an upload.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from tests.simulation.worlds import BrokenPromiseError, Register

AUDIENCES: Final = ("red", "green", "blue")
SEGMENT_IDS: Final = ("s1", "s2")
PEOPLE: Final = ("ann", "bob", "cyd", "dan")
GHOSTS: Final = ("ghost-1", "ghost-2", "ghost-3")
"""Identifiers that are forgotten once and for all, so that no byte of them may be left."""
MARKS: Final = "marks"
"""The audience of the marks."""

Fate = Literal["under way", "acknowledged", "refused", "unknown"]


class Cell(NamedTuple):
    """A membership, with what decides about later changes of it. v: None where there is no decision."""

    v: int | None = None
    floor: int = 0
    forgotten_ms: int = -1


class Definition(NamedTuple):
    """A segment. audience: None where there is none."""

    revision: int = 0
    audience: str | None = None


CellAct = Callable[[Cell], tuple[Cell, None] | None]


def decided(v: int) -> CellAct:
    """An event, or the place of an identifier in a whole list: the largest counts, unless it is void."""

    def act(cell: Cell) -> tuple[Cell, None]:
        void = v % 2 == 0 and v < cell.floor
        if void or v >> 1 <= cell.forgotten_ms or (cell.v is not None and cell.v >= v):
            return cell, None
        return cell._replace(v=v), None

    return act


def floor_raised(floor: int) -> CellAct:
    """Qualifications below `floor` are void from now on."""
    return lambda cell: (cell._replace(floor=max(floor, cell.floor)), None)


def swept(floor: int) -> CellAct:
    """Who is not in the list of an import is out just before it; only when its floor stands."""

    def act(cell: Cell) -> tuple[Cell, None] | None:
        if cell.floor < floor:
            return None
        outdated = cell.v is not None and cell.v % 2 == 0 and cell.v < floor
        return (cell._replace(v=floor - 1) if outdated else cell), None

    return act


def deleted(floor: int) -> CellAct:
    """The audience is gone; a new one of its name begins with this floor."""
    return lambda cell: (cell._replace(v=None, floor=max(floor, cell.floor)), None)


def forgotten(now_ms: int) -> CellAct:
    """Nothing from before is known of the identifier."""
    return lambda cell: (cell._replace(v=None, forgotten_ms=max(now_ms, cell.forgotten_ms)), None)


def put(audience: str) -> Callable[[Definition], tuple[Definition, tuple[int, bool]]]:
    """The answer is (revision, whether it was created)."""

    def act(found: Definition) -> tuple[Definition, tuple[int, bool]]:
        if found.audience == audience:
            return found, (found.revision, False)
        return Definition(found.revision + 1, audience), (found.revision + 1, found.audience is None)

    return act


def removed(found: Definition) -> tuple[Definition, bool]:
    """The answer is whether there was one."""
    return found._replace(audience=None), found.audience is not None


class Promises:
    """All of it."""

    def __init__(self) -> None:
        people = PEOPLE + GHOSTS
        self.cells = {(who, name): Register(f"{who} in {name}", Cell()) for who in people for name in AUDIENCES}
        self.segments = {name: Register(f"segment {name}", Definition()) for name in SEGMENT_IDS}
        self.fates: dict[str, Fate] = {}
        """Uploads of events."""
        self._under_way: dict[str, list[Register[Cell]] | list[Register[Definition]]] = {}
        self._unsure: dict[str, list[Register[Cell]]] = {}

    def begin_events(self, request: str, events: dict[tuple[str, str], int]) -> None:
        """An upload of events: (person, audience) → `v`."""
        self.begin(request, {place: decided(v) for place, v in events.items()})
        self.fates[request] = "under way"

    def begin(self, request: str, acts: dict[tuple[str, str], CellAct]) -> None:
        """A request that does these things is under way."""
        for place, act in acts.items():
            self.cells[place].begin(request, act)
        self._under_way[request] = [self.cells[place] for place in acts]

    def begin_segment(self, request: str, segment_id: str, act: Callable[[Definition], object]) -> None:
        """Likewise for a segment."""
        register = self.segments[segment_id]
        register.begin(request, act)  # type: ignore[arg-type]
        self._under_way[request] = [register]

    def done(self, request: str, answer: object = None) -> None:
        """It was acknowledged. Raises BrokenPromiseError, as all that follow."""
        self._fate(request, "acknowledged")
        for register in self._under_way.pop(request):
            register.done(request, answer)

    def refused(self, request: str) -> None:
        """It was refused, so nothing of it may ever be seen."""
        self._fate(request, "refused")
        for register in self._under_way.pop(request):
            register.refused(request)

    def ended(self, request: str) -> None:
        """It has come to its end, and each part of it took effect or never will."""
        for register in self._under_way.pop(request):
            register.ended(request)

    def life_ended(self, going_on: set[str]) -> None:
        """Nothing is under way any more but the imports `going_on`, which go on in the next life."""
        for request in [name for name in self._under_way if name not in going_on]:
            if request not in self.fates:
                self.ended(request)
                continue
            self._fate(request, "unknown")
            registers = self._under_way.pop(request)
            for register in registers:
                register.stopped(request)
            self._unsure[request] = registers  # type: ignore[assignment]

    def versions(self) -> dict[tuple[str, str], int]:
        """Of each membership for which nothing is under way; it differs later if something began meanwhile."""
        return {place: cell.version for place, cell in self.cells.items() if cell.is_settled}

    def marks_seen(self, request: str, seen: tuple[bool, bool]) -> None:
        """Whether its two marks are there. Raises BrokenPromiseError."""
        fate = self.fates[request]
        if fate == "unknown":
            if len(set(seen)) > 1:
                raise BrokenPromiseError(f"{request} is there by half: its marks are {seen}")
            self._fate(request, "acknowledged" if all(seen) else "refused")
            for register in self._unsure.pop(request):
                register.settle(request, applied=all(seen))
        elif fate == "acknowledged" and not all(seen):
            raise BrokenPromiseError(f"{request} was acknowledged and is not there: its marks are {seen}")
        elif fate == "refused" and any(seen):
            raise BrokenPromiseError(f"{request} was refused and is there: its marks are {seen}")

    def _fate(self, request: str, fate: Fate) -> None:
        if request in self.fates:
            self.fates[request] = fate
