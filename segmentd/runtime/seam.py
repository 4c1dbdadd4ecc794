"""The seam: what everything above knows of memberships. Above it (HTTP, GraphQL) nobody knows which store runs.

A store that has everything in this process answers queries with plain calls (`MembershipReader`); one that has to ask
others for it is waited for (`AwaitedReader`). What writes, and what only people look at, is awaited with both.
"""

from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from segmentd.domain.events import Change
from segmentd.domain.importjob import ImportJob
from segmentd.domain.members import MembersPage
from segmentd.runtime.audiences import Deletion
from segmentd.runtime.mailbox import Reply
from segmentd.storage.exporter import Form


class StoreStats(msgspec.Struct, frozen=True):
    """Figures for metrics and health. What is None does not exist in a store of that kind."""

    identifiers: int
    memberships: int
    """Latest decisions held, disqualified ones included."""
    audiences: int
    commits_waiting: int
    journal_records: int | None = None
    journal_bytes: int | None = None
    unfolded_records: int | None = None
    """Journal records that the index does not hold yet."""


class OwnerOnlyError(Exception):
    """Asked of a follower, which does not know it; the question belongs to the owner of the store."""


class MembershipReader(Protocol):
    """What queries read, of the owner or of a follower. Plain calls that never wait."""

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """`v` of the identifier in each audience, None where there never was a decision."""

    def memberships(self, key: bytes) -> dict[str, int]:
        """audience id → `v`, every decision about the identifier."""

    def size(self, audience: str) -> int:
        """The exact number of qualified members now. A follower raises OwnerOnlyError."""


class Wanted(msgspec.Struct):
    """What is to be fetched in one go."""

    lookups: dict[bytes, set[str]] = {}
    """Identifier key → audience ids."""
    sizes: set[str] = set()
    """Audience ids."""
    pages: set[tuple[str, bytes, int]] = set()
    """Members, as in `MembersReader.page`: (audience id, after, first)."""

    def __bool__(self) -> bool:
        return bool(self.lookups or self.sizes or self.pages)


class Found(msgspec.Struct, frozen=True):
    """What was wanted, all of it: what nobody knows has its place too, as with `MembershipReader`."""

    lookups: Mapping[bytes, Mapping[str, int | None]] = {}
    sizes: Mapping[str, int] = {}
    pages: Mapping[tuple[str, bytes, int], MembersPage] = {}


class AwaitedReader(Protocol):
    """What queries read of a store that has to be waited for."""

    async def fetch(self, wanted: Wanted) -> Found:
        """Everything that is wanted, each as of a moment after the call: whatever was acknowledged before is in it.

        Bounded by what one query may cost. Cancelling gives up the wait. Raises StoreUnavailable, Overloaded.
        """


class MembershipStore(Protocol):
    """What is above the seam may call. What is not async is a plain call that never waits."""

    def check_room(self, changes: int = 1) -> None:
        """Raises what `apply` of so many would raise now: Overloaded (a queue or the journal is full), ShuttingDown,
        StoreUnavailable.
        """

    async def apply(self, changes: Sequence[Change]) -> None:
        """Returns when every change is on disk and visible to whoever looks from now on.

        Cancelling gives up the wait, not the change. Raises Overloaded, ShuttingDown, StoreUnavailable, LimitReached;
        after each of these nothing was applied.
        """

    def submit(self, changes: Sequence[Change]) -> Reply[None]:
        """As `apply` of at least one change, without the waiting: the reply comes when `apply` would return or raise.

        Raises what can be said at once; what comes later comes with the reply.
        """

    async def memberships_of(self, key: bytes) -> Mapping[str, int]:
        """audience id → `v`, every decision about the identifier. Raises StoreUnavailable, Overloaded."""

    async def delete_audience(self, audience: str, now_ms: int) -> Deletion | None:
        """Drop all memberships of an audience, durably; None if there is no such audience.

        When it returns, nothing shows the audience any more; what is left of it is swept up meanwhile, which the
        Deletion tells. Qualifications from before `now_ms` do not bring it back. Raises what `apply` raises.
        """

    async def deletion(self, number: int) -> Deletion | None:
        """The deletion by the number that it has, None if there was none. Raises StoreUnavailable, Overloaded."""

    async def forget(self, keys: Sequence[bytes], now_ms: int) -> None:
        """Drop everything about identifiers, durably and visibly; decisions up to `now_ms` do not bring it back.

        Raises what `apply` raises.
        """

    def stats(self) -> StoreStats:
        """Figures as of now."""

    def failure(self) -> str | None:
        """Why nothing can be written any more, or None."""


class DeletesAudiences(Protocol):
    """The part of the store that deletes audiences; see MembershipStore."""

    async def delete_audience(self, audience: str, now_ms: int) -> Deletion | None: ...
    async def deletion(self, number: int) -> Deletion | None: ...


class ImportHistory(Protocol):
    """What is known of imports."""

    def last_completed(self, audience_id: str) -> ImportJob | None:
        """The import of an audience with the latest T, None if there was none (or it is not kept any more)."""

    def qualifying(self, audience_id: str) -> dict[int, str]:
        """The `v` that an import of the audience gives to whoever it lists → the id of its job."""

    def deciding(self, audience_ids: Container[str]) -> dict[tuple[str, int], str]:
        """(audience, `v`) → the id of the import that gives this `v`, to the listed ones or to all others."""


class AudienceFacts(msgspec.Struct, frozen=True):
    """An audience as its list shows it."""

    audience_id: str
    size: int
    """Qualified members now."""
    last_event_ms: int
    """The largest `ts` of its events, 0 if there was none."""
    last_import_ms: int
    """The T of its latest whole list, from the moment on that its listed ones are members; 0 if there was none."""


class ExportBrokenError(Exception):
    """An export ended before the file was whole."""


class SeveralIdentifiersError(Exception):
    """A CSV has room for one identifier name; `names` are there."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class Export(Protocol):
    """One file on its way. Iterate over `chunks` once, and `aclose` in any case, as soon as nobody reads any more."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file, each piece when it is there. Raises ExportBrokenError: it will not become whole."""

    async def aclose(self) -> None:
        """Give up what is left of it, and what it held."""


class MembersReader(Protocol):
    """Who is in an audience, and which audiences there are.

    What is called after `settled` has everything that was acknowledged before it. All but `settled` raise what
    `settled` raises.
    """

    async def settled(self) -> None:
        """Wait until what was acknowledged so far can be read. Raises StoreUnavailable, Overloaded."""

    async def audience_ids(self) -> list[str]:
        """All audiences, sorted."""

    async def facts(self, audiences: Iterable[str]) -> list[AudienceFacts]:
        """About these audiences, in order; those that are unknown are left out. Has all that was acknowledged."""

    async def page(self, audience: str, after: bytes, first: int) -> MembersPage:
        """At most `first` members behind the identifier key `after`, in key order; none of an unknown audience.

        Has everything that was acknowledged so far, without `settled`.
        """

    async def export(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> Export:
        """All members from one snapshot that has everything acknowledged so far.

        form: as `segmentd.storage.exporter` writes it. identifier: the only name to export. It has begun well when this
        returns. Raises SeveralIdentifiersError as well.
        """


class SettledMembers(Protocol):
    """Members of a store that has them in this process: plain calls, once `settled` was waited for."""

    def members(self, audience: str, after: bytes, first: int) -> MembersPage:
        """As `MembersReader.page`, of what had settled."""


class AudienceMembers:
    """Members and where they come from, for queries."""

    def __init__(self, reader: SettledMembers, imports: ImportHistory) -> None:
        self.members = reader.members
        self.qualifying = imports.qualifying
