"""What a store holds beside memberships, as both kinds of store can say it, and how two of them are compared. Pure.

All of it is in memory at once, as it is in every node; memberships are not, they pass by in pieces.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.importjob import ImportJob
from segmentd.domain.segments import SegmentRecord
from segmentd.keyfile import StoredKey

DIFFERENCES_LISTED_MAX: Final = 20
PIECE_IDENTIFIERS: Final = 2_000
"""Identifiers that are read, written or compared at once."""

Held = Mapping[str, int]
"""audience id → `v`, all decisions about one identifier, disqualified ones too."""
Row = tuple[bytes, Held]
_Part = tuple[str, Mapping[str, Any], Mapping[str, Any], Callable[[Any, Any], bool]]
"""(what, of the source, of the target, whether the target's is as good where it is another one)"""


class MigrationError(Exception):
    """The migration cannot begin or go on. The message says why, and what to do."""


class Audience(NamedTuple):
    """An audience that exists or did. Floors are `v`, 0 for none; see `segmentd.domain.gate`."""

    is_living: bool
    floor: int
    """What its deletions have left."""
    deleted_ms: int
    """When it was deleted; 0 if it exists."""
    import_floor: int
    """Of its latest whole list."""
    last_event_ms: int


_MERGED: Final = (1, 3, 4)
"""Fields of an audience of which the larger one stays: floors, and the time of the last event."""


class Contents(msgspec.Struct):
    """Everything but the memberships."""

    kinds: list[str]
    """Identifier names; a name's number, with which keys begin, is its place here."""
    salt: bytes
    """Keys the marks."""
    audiences: dict[str, Audience]
    forgotten: dict[bytes, int]
    """Mark → when, ms; see `Gate.mark`."""
    segments: dict[str, SegmentRecord]
    """Deleted ones too: their revision goes on."""
    keys: dict[str, StoredKey]
    jobs: list[ImportJob]
    requests: list[ForgetJob]
    unfinished: list[str]
    """What has to be finished before it can be moved, in words."""


class Counts(NamedTuple):
    """What is there, counted. sizes: qualified members of each audience that has any."""

    identifiers: int
    memberships: int
    sizes: Mapping[str, int]


class Side(Protocol):
    """A store that is moved, or to which is moved. All raise MigrationError, StorageError, StoreUnavailable."""

    @property
    def place(self) -> str:
        """What people call it."""

    async def contents(self) -> Contents:
        """As of now."""

    async def counts(self) -> Counts:
        """As of now."""

    def rows(self) -> AsyncGenerator[Sequence[Row], None]:
        """All identifiers in pieces; one may come twice where a cluster is resharded."""

    async def held(self, keys: Sequence[bytes]) -> list[Held]:
        """The decisions about some identifiers."""

    async def begin(self, contents: Contents, *, merge: bool) -> list[int]:
        """Take over kinds and audiences; returns the number here of each kind. merge: even if something is here."""

    async def merge(self, rows: Sequence[Row]) -> None:
        """Have these decisions, durably, beside what is there; of two decisions the later one stays."""

    async def finish(self, contents: Contents) -> None:
        """Take over the rest, durably; then it may be served."""


class Differences:
    """What does not agree: the first ones as text, and how many."""

    def __init__(self) -> None:
        self.total = 0
        self.listed: list[str] = []

    def add(self, text: str) -> None:
        """Note one."""
        self.total += 1
        if len(self.listed) < DIFFERENCES_LISTED_MAX:
            self.listed.append(text)


def compare_contents(source: Contents, target: Contents, differences: Differences, *, exact: bool) -> None:
    """Everything of the source must be in the target, as it is; or later than that, where `exact` is not wanted."""
    parts: tuple[_Part, ...] = (
        ("audience", source.audiences, target.audiences, _audience_is_later),
        ("segment", source.segments, target.segments, _segment_is_later),
        ("key", source.keys, target.keys, _is_there),
        ("forgotten", _named(source.forgotten), _named(target.forgotten), _number_is_later),
        ("import", {job.id: job for job in source.jobs}, {job.id: job for job in target.jobs}, _is_there),
    )
    for what, ours, theirs, is_later in parts:
        for name, value in sorted(ours.items()):
            found = theirs.get(name)
            if found != value and (exact or found is None or not is_later(value, found)):
                differences.add(f"{what} {name}: {_shown(value)} in the source, {_shown(found)} in the target")


def compare_counts(source: Counts, target: Counts, differences: Differences) -> None:
    """The counts must be the same."""
    for what in ("identifiers", "memberships"):
        ours, theirs = getattr(source, what), getattr(target, what)
        if ours != theirs:
            differences.add(f"{what}: {ours} in the source, {theirs} in the target")
    for audience in sorted(source.sizes.keys() | target.sizes.keys()):
        ours, theirs = source.sizes.get(audience, 0), target.sizes.get(audience, 0)
        if ours != theirs:
            differences.add(f"audience {audience}: {ours} members in the source, {theirs} in the target")


def compare_row(key: bytes, source: Held, target: Held, differences: Differences, *, exact: bool) -> None:
    """exact: nothing else may be in the target; if not, it may know later decisions and more audiences."""
    for audience in sorted(source.keys() | target.keys()):
        ours, theirs = source.get(audience), target.get(audience)
        if ours == theirs or (not exact and (ours is None or (theirs is not None and theirs > ours))):
            continue
        differences.add(f"{shown_key(key)} in {audience}: {_shown(ours)} in the source, {_shown(theirs)} in the target")


def shown_key(key: bytes) -> str:
    """An identifier key for people."""
    return f"#{key[0]}:{key[1:].decode(errors='replace')!r}"


def _named(marks: Mapping[bytes, int]) -> dict[str, int]:
    return {mark.hex(): forgotten_ms for mark, forgotten_ms in marks.items()}


def _audience_is_later(ours: Audience, theirs: Audience) -> bool:
    # One that was deleted here may live there; what the deletion has left must be there all the same.
    lives = theirs.is_living or not ours.is_living
    return lives and all(theirs[place] >= ours[place] for place in _MERGED)


def _segment_is_later(ours: SegmentRecord, theirs: SegmentRecord) -> bool:
    # Two different definitions may have the same revision; the one that was there first stays.
    return (theirs.revision, theirs.definition is None) >= (ours.revision, ours.definition is None)


def _number_is_later(ours: int, theirs: int) -> bool:
    return theirs >= ours


def _is_there(_ours: object, _theirs: object) -> bool:
    return True


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
