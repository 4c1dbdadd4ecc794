"""The seam: what everything above knows of memberships. Above it (HTTP, GraphQL) nobody knows which store runs."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from segmentd.domain.events import Change
from segmentd.runtime.audiences import Deletion


class StoreStats(msgspec.Struct, frozen=True):
    """Figures for metrics and health."""

    identifiers: int
    memberships: int
    """Latest decisions held, disqualified ones included."""
    audiences: int
    journal_records: int
    journal_bytes: int
    commits_waiting: int
    unfolded_records: int
    """Journal records that the index does not hold yet."""


class MembershipStore(Protocol):
    """What is above the seam may call. What is not async is a plain call that never waits."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """Returns when every change is on disk and visible to whoever looks from now on.

        Cancelling gives up the wait, not the change. Raises Overloaded, ShuttingDown, StoreUnavailable, LimitReached;
        after each of these nothing was applied.
        """

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """`v` of the identifier in each audience, None where there never was a decision."""

    def memberships(self, key: bytes) -> dict[str, int]:
        """audience id → `v`, every decision about the identifier."""

    def size(self, audience: str) -> int:
        """The exact number of qualified members now."""

    async def delete_audience(self, audience: str, now_ms: int) -> Deletion | None:
        """Drop all memberships of an audience, durably; None if there is no such audience.

        When it returns, nothing shows the audience any more; what is left of it is swept up meanwhile, which the
        Deletion tells. Qualifications from before `now_ms` do not bring it back. Raises what `apply` raises.
        """

    def deletion(self, number: int) -> Deletion | None:
        """The deletion by the number that it has, None if there was none."""

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        """Drop everything about identifiers, durably and visibly; decisions up to `now_ms` do not bring it back.

        Raises what `apply` raises.
        """

    def stats(self) -> StoreStats:
        """Figures as of now."""

    def failure(self) -> str | None:
        """Why nothing can be written any more, or None."""
