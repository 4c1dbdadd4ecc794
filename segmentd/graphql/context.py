"""What a resolver can reach: the published state, the identifiers, and the right of the key that asks.

Owns the narrow protocols through which GraphQL reads; never changes anything. All calls are plain functions on the
loop's thread, so one execution sees one consistent state.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from segmentd.domain.identifiers import IdentifierSchema
from segmentd.domain.segments import Segment

Right = Literal["public", "private"]


class MembershipReader(Protocol):
    """The part of the membership store that queries read."""

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """The membership integer of each audience, in order; None where nothing was ever decided."""
        ...

    def size(self, audience: str) -> int:
        """How many members are qualified now."""
        ...


class SegmentReader(Protocol):
    """The part of the catalog that queries read."""

    @property
    def segments(self) -> Mapping[str, Segment]:
        """Published segments by id (lower case)."""
        ...

    def segment_ids(self) -> Sequence[str]:
        """Ids, ascending; not to be changed."""
        ...


class MemberPageRows(Protocol):
    """One page of members."""

    @property
    def members(self) -> Sequence[tuple[bytes, int]]: ...
    @property
    def total(self) -> int: ...
    @property
    def has_more(self) -> bool: ...


class MemberReader(Protocol):
    """Who is in an audience; the index has been waited for."""

    def members(self, audience: str, after: bytes, first: int) -> MemberPageRows:
        """At most `first` members (identifier key, v) behind the key `after`, in key order."""
        ...

    def qualifying(self, audience: str) -> Mapping[int, str]:
        """The `v` that an import of the audience gives → the id of its job."""
        ...


class ReadContext(NamedTuple):
    """The context value of one execution."""

    store: MembershipReader
    catalog: SegmentReader
    schema: IdentifierSchema
    right: Right
    """What the caller's key may do; fields that show members ask for "private"."""
    members: MemberReader | None = None
    members_page_max: int = 0
