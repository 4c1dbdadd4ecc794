"""Members of an audience, as whoever reads them passes them on. Plain values."""

import msgspec

Member = tuple[bytes, int]
"""(identifier key, v)"""


class MembersPage(msgspec.Struct, frozen=True):
    """Some members of an audience."""

    members: list[Member]
    total: int
    """How many the audience has in the same snapshot."""
    has_more: bool
