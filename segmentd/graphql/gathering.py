"""Reads that have to be awaited, for an executor that cannot wait.

A request is executed over what has been fetched for it so far (`Gathering`). What is missing is noted, and something
neutral is told instead; what came of such a round is thrown away. Then all that was missing is fetched in one call, and
the request is executed again, until nothing is missing.

Why that ends: what a request asks for depends on its text, on the catalog, and on what was fetched before. Memberships
depend on nothing fetched; sizes and pages of members belong to segments, and which segments are shown depends on
memberships alone. So the third round has everything, unless a segment was made meanwhile: then one more is needed.
`ROUNDS_MAX` bounds that as well. What one round wants is bounded by what a query may cost (`cost.py`): every
membership, size, page and row of it that is asked for has its place there.

Invariants:
1. What was fetched stays as it is for the rest of the request: its answer never shows one thing in two states.
2. An answer was executed over fetched values alone.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from graphql import DocumentNode

from segmentd.domain.members import MembersPage
from segmentd.domain.refusals import StoreUnavailable
from segmentd.runtime.seam import AwaitedReader, ImportHistory, Wanted

ROUNDS_MAX: Final = 8
_NOBODY: Final = MembersPage([], 0, False)
_NOTHING: Final[Mapping[str, int | None]] = {}


class IncompleteError(Exception):
    """This round stands on values that were not fetched yet; whatever went wrong in it means nothing."""


class AwaitedReads:
    """How requests read from a store that has to be waited for."""

    def __init__(self, reader: AwaitedReader, imports: ImportHistory | None, retry_after_seconds: int) -> None:
        """imports: where members come from; None shows no members to anybody."""
        self.reader = reader
        self.imports = imports
        self._retry_after_seconds = retry_after_seconds

    def endless(self) -> StoreUnavailable:
        """The refusal of a request that wanted more in every round."""
        return StoreUnavailable("The segments changed while the answer was gathered.", self._retry_after_seconds)


class Gathering:
    """What one request has read so far; implements the readers of `segmentd.graphql.context`."""

    def __init__(self, reads: AwaitedReads) -> None:
        self._reader = reads.reader
        self._imports = reads.imports
        self._versions: dict[bytes, dict[str, int | None]] = {}
        self._sizes: dict[str, int] = {}
        self._pages: dict[tuple[str, bytes, int], MembersPage] = {}
        self.wanted = Wanted()
        """What was missing since the last `fetch`."""
        self.tree: DocumentNode | None = None
        """Of the request's text, once a round has had to parse it."""

    def lookup(self, key: bytes, audiences: Sequence[str]) -> list[int | None]:
        """See MembershipReader."""
        known = self._versions.get(key, _NOTHING)
        missing = [audience for audience in audiences if audience not in known]
        if missing:
            self.wanted.lookups.setdefault(key, set()).update(missing)
        return [known.get(audience) for audience in audiences]

    def size(self, audience: str) -> int:
        """See MembershipReader."""
        found = self._sizes.get(audience)
        if found is None:
            self.wanted.sizes.add(audience)
            return 0
        return found

    def members(self, audience: str, after: bytes, first: int) -> MembersPage:
        """See MemberReader."""
        found = self._pages.get((audience, after, first))
        if found is None:
            self.wanted.pages.add((audience, after, first))
            return _NOBODY
        return found

    def qualifying(self, audience: str) -> Mapping[int, str]:
        """See MemberReader."""
        return {} if self._imports is None else self._imports.qualifying(audience)

    async def fetch(self) -> None:
        """Fetch what was missing. Raises what `AwaitedReader.fetch` raises; KeyError: it left something out."""
        wanted, self.wanted = self.wanted, Wanted()
        found = await self._reader.fetch(wanted)
        for key, audiences in wanted.lookups.items():
            versions = found.lookups[key]
            self._versions.setdefault(key, {}).update({audience: versions[audience] for audience in audiences})
        self._sizes.update({audience: found.sizes[audience] for audience in wanted.sizes})
        self._pages.update({page: found.pages[page] for page in wanted.pages})
