"""What an import needs of a store: the part of the seam that is for whole lists.

An import as of T decides about every identifier: the listed ones are qualified at T (`v = 2T`), and for all others
every qualification from before T is void. `Importer` says what happens in which order; a store says how. All calls may
be repeated with the same end, wait however long it takes (what cannot be reached now is tried again), and may be
cancelled.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class WholeList(msgspec.Struct, frozen=True):
    """A list on its way into a store: what is the same for all of its slices."""

    audience_id: str
    number: int | None
    """Which audience of that id, as `ListStore.number` says; None: there is none, and a dry run makes none."""
    as_of_ms: int
    """T."""
    taken_ms: int
    """When the list was taken; whoever was forgotten after that is left alone."""
    kind_number: int
    """Of all values in the list."""
    staged: Path
    """The distinct values, sorted as bytes, one a line."""


class Compared(msgspec.Struct, frozen=True):
    """What comparing a list with the members of its audience has found."""

    members: int = 0
    """Members of the audience in all."""
    outdated: int = 0
    """Those that are not listed and were qualified before T."""


class AudienceGoneError(Exception):
    """The audience that a list is for was deleted, whether it has come up again or not."""

    def __init__(self) -> None:
        super().__init__("The audience was deleted meanwhile.")


class ListStore(Protocol):
    """Used by one import at a time."""

    async def number(self, audience_id: str) -> int | None:
        """What tells an audience from one of the same id that was deleted; None if there is none now."""

    async def numbered(self, audience_id: str) -> int:
        """The same, given if it has none. Raises LimitReached."""

    async def floor(self, audience_id: str) -> int:
        """Qualifications below this `v` are void: that of the latest import, or of the audience's deletion."""

    async def compare(self, listed: WholeList, output: Path | None) -> Compared:
        """Compare list and members as of a moment after the call: everything from before it is looked at.

        output: where the keys of outdated members go, one a line (`segmentd.storage.importscan.sweep_line`), on disk
        when this returns. The audience has a number.
        """

    async def qualify(self, listed: WholeList, keys: Sequence[bytes], *, dry_run: bool) -> int:
        """Have `keys` qualified at T; returns how many become members by that, durably and visibly.

        dry_run: only count. Raises AudienceGoneError; LimitReached.
        """

    async def raise_floor(self, number: int, as_of_ms: int) -> None:
        """Void qualifications from before T from now on; when this returns, older ones that counted are visible."""

    async def disqualify(self, listed: WholeList, keys: Sequence[bytes]) -> int:
        """Disqualify those of `keys` that still are outdated, just below T (`v = 2T - 1`), durably and visibly.

        Returns how many were, or had been by this import already. Raises AudienceGoneError.
        """
