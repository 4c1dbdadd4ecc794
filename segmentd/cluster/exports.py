"""Exports of all members of an audience out of the cluster, as the embedded store's exporter writes them.

The file has every member that was acknowledged before the export began and was not disqualified since; of what is
written meanwhile some is in it. Invariants: (1) at most `running_max` exports at a time; (2) a file that is not whole
ends in an error, never as if it were.
"""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import trio

from segmentd.cluster.members import ClusterMembers
from segmentd.domain.members import Member
from segmentd.domain.refusals import Overloaded, StoreUnavailable
from segmentd.runtime.seam import ExportBrokenError, SeveralIdentifiersError
from segmentd.storage.exporter import GZIP_WBITS, ROWS_A_WRITE, Form, csv_texts, ndjson_texts


class ClusterExport:
    """One file on its way; implements `segmentd.runtime.seam.Export`."""

    def __init__(self, texts: AsyncIterator[str], *, gzip: bool, release: Callable[[], None]) -> None:
        self._texts = texts
        self._compressor = zlib.compressobj(wbits=GZIP_WBITS) if gzip else None
        self._release = release
        self._is_released = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """See Export."""
        try:
            async for text in self._texts:
                chunk = text.encode() if self._compressor is None else self._compressor.compress(text.encode())
                if chunk:
                    yield chunk
        except StoreUnavailable as refusal:
            raise ExportBrokenError(refusal.message) from refusal
        if self._compressor is not None:
            yield self._compressor.flush()

    async def aclose(self) -> None:
        """See Export."""
        if not self._is_released:
            self._is_released = True
            self._release()
        await trio.lowlevel.checkpoint()


class ClusterExports:
    """Begins exports."""

    def __init__(
        self, members: ClusterMembers, kinds: Mapping[str, int], *, running_max: int, retry_after_seconds: int
    ) -> None:
        """kinds: high-confidence identifier names with their numbers."""
        self._members = members
        self._kinds = dict(kinds)
        self._running_max = running_max
        self._running = 0
        self._retry_after_seconds = retry_after_seconds

    async def begin(self, audience: str, form: Form, *, gzip: bool, identifier: str | None) -> ClusterExport:
        """See MembersReader.export. Raises SeveralIdentifiersError, Overloaded, StoreUnavailable."""
        if self._running >= self._running_max:
            message = f"{self._running_max} exports are running ([members] exports_running_max)."
            raise Overloaded(message, self._retry_after_seconds)
        self._running += 1
        try:
            if form == "csv" and identifier is None:
                identifier = await self._only_identifier(audience)
        except BaseException:
            self._release()
            raise
        texts = self._texts(audience, form, identifier)
        return ClusterExport(texts, gzip=gzip, release=self._release)

    def _release(self) -> None:
        self._running -= 1

    async def _only_identifier(self, audience: str) -> str:
        """The name that a CSV has room for. Raises SeveralIdentifiersError."""
        present = [name for name, number in self._kinds.items() if await self._members.has_kind(audience, number)]
        if len(present) > 1:
            raise SeveralIdentifiersError(present)
        return present[0] if present else next(iter(self._kinds))

    async def _texts(self, audience: str, form: Form, identifier: str | None) -> AsyncIterator[str]:
        names = {number: name for name, number in self._kinds.items()}
        kind = None if identifier is None else self._kinds[identifier]
        is_first = True
        async for rows in self._rows(audience, kind):
            known: Iterator[Member] = ((key, v) for key, v in rows if key[0] in names)
            texts = (
                csv_texts(known, audience, str(identifier), with_head=is_first)
                if form == "csv"
                else ndjson_texts(known, audience, names)
            )
            is_first = False
            for text in texts:
                yield text
        if is_first and form == "csv":
            for text in csv_texts((), audience, str(identifier)):
                yield text

    async def _rows(self, audience: str, kind: int | None) -> AsyncIterator[list[Member]]:
        rows: list[Member] = []
        async for member in self._members.all(audience, kind=kind, patient=_at_once):
            rows.append(member)
            if len(rows) >= ROWS_A_WRITE:
                yield rows
                rows = []
        if rows:
            yield rows


async def _at_once(act: Callable[[], Awaitable[None]]) -> None:
    """An export does not wait longer than a read does."""
    await act()
