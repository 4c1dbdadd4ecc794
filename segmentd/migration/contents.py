"""What a store holds beside memberships, as both kinds of store can say it, and how two of them are compared. Pure.

All of it is in memory at once, as it is in every node; memberships are not, they pass by in pieces.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

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
T = TypeVar("T")


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


def compare_contents(source: Contents, target: Contents, differences: Differences) -> None:
    """Everything of the source must be in the target, as it is."""
    parts: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("audience", source.audiences, target.audiences),
        ("segment", source.segments, target.segments),
        ("key", source.keys, target.keys),
        ("forgotten", _named(source.forgotten), _named(target.forgotten)),
        ("import", {job.id: job for job in source.jobs}, {job.id: job for job in target.jobs}),
    )
    for what, ours, theirs in parts:
        for name, value in _missing(ours, theirs):
            differences.add(f"{what} {name}: {_shown(value)} in the source, {_shown(theirs.get(name))} in the target")


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


def _named(marks: Mapping[bytes, int]) -> dict[str, object]:
    return {mark.hex(): forgotten_ms for mark, forgotten_ms in marks.items()}


def _missing(ours: Mapping[str, T], theirs: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    return ((name, value) for name, value in sorted(ours.items()) if theirs.get(name) != value)


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
