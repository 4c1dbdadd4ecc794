"""What owner and follower say to each other. Owns the types; never sends anything.

A follower hears `Begin` first and says `Ready` when it accepts connections. `Handed` goes both ways and has the
connection's socket with it. `Leave` is the last word that a follower hears.
"""

from __future__ import annotations

import msgspec

from segmentd.processmetrics import Family
from segmentd.settings import Settings


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Owner → follower: who it is, and with which settings it serves. slot: its place in the tally."""

    name: str
    slot: int
    settings: Settings


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Follower → owner: it accepts connections."""


class Handed(msgspec.Struct, frozen=True, tag="handed"):
    """A connection for the other process. The message's descriptor is the socket."""

    begun: bytes
    """What was read and not answered."""
    hops: int
    """How often it was handed on, this time included."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Owner → follower: accept no more and end.

    stopping: the whole service ends, so idle connections end too. Else all of them are handed to the owner.
    """

    stopping: bool


class Reopen(msgspec.Struct, frozen=True, tag="reopen"):
    """Owner → follower: the store has files of another generation; the old ones shall not be open any more."""

    generation: str


class Reopened(msgspec.Struct, frozen=True, tag="reopened"):
    """Follower → owner: nothing of an older generation than this is open or kept."""

    generation: str


class Scrape(msgspec.Struct, frozen=True, tag="scrape"):
    """Owner → follower: what are your metrics?"""

    number: int


class Scraped(msgspec.Struct, frozen=True, tag="scraped"):
    """Follower → owner: its metrics. number: of the question; 0 where nobody asked, which is its last word."""

    number: int
    families: list[Family]


Message = Begin | Ready | Handed | Leave | Reopen | Reopened | Scrape | Scraped
