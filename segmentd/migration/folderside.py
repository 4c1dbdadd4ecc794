"""A data folder as one side of a migration. Locked: nobody serves it meanwhile.

Read: the journal is folded into the index, and the index read in one snapshot. Written: straight into the index, in
the same way as a fold does. A new folder is made beside its place and gets its name when all of it is there, so that
nobody serves a half of it; a migration that was interrupted goes on in it.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import trio

from segmentd import keyfile
from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, is_qualified, ts_ms_of, unpack
from segmentd.domain.segments import SegmentRecord
from segmentd.migration.contents import PIECE_IDENTIFIERS, Audience, Contents, Counts, Held, MigrationError, Row
from segmentd.migration.histories import Histories, unfinished
from segmentd.settings import Settings
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder, sync_way_to
from segmentd.storage.index import AudienceRow
from segmentd.storage.merging import Gained, Merging, gather

_V_MASK: Final = (1 << V_BITS) - 1


class FolderSide:
    """Implements `segmentd.migration.contents.Side`; blocks the loop for a piece at a time, on which nothing runs."""

    def __init__(self, settings: Settings, *, is_target: bool) -> None:
        """Raises StorageError."""
        storage = settings.storage
        self._path = Path(storage.path)
        self._part: Path | None = None
        if is_target and not (self._path.exists() and any(self._path.iterdir())):
            self._part = self._path.with_name(f"{self._path.name}.part")
        self.place = f"the data folder {self._path}"
        self._folder = DataFolder(
            self._part or self._path,
            journal_map_bytes=storage.journal_map_bytes,
            index_map_bytes=storage.index_map_bytes,
            create=is_target,
        )
        self._histories = Histories(self._folder.path)
        self._journal = self._folder.open_journal()
        self._index = self._folder.open_index()
        while fold(self._journal, self._index, changes_max=storage.checkpoint_batch_changes_max).more:
            pass
        self._read_audiences()

    @property
    def data(self) -> Path:
        """Where its files are now."""
        return self._folder.path

    def close(self) -> None:
        """Nothing may be under way."""
        self._index.close()
        self._journal.close()
        self._folder.close()

    async def contents(self) -> Contents:
        """See Side."""
        await trio.lowlevel.checkpoint()
        jobs, requests = self._histories.jobs(), self._histories.requests()
        salt = self._index.salt()
        with self._index.reading() as txn:
            return Contents(
                kinds=list(self._index.known_kinds(txn)),
                salt=salt,
                audiences=_audiences(self._index.audiences(txn)),
                forgotten=dict(self._index.forgotten(txn)),
                segments={record.segment_id: record for record in self._index.segments(txn)},
                keys=keyfile.read(keyfile.path_in(self._folder.path)),
                jobs=[job for job in jobs if job.is_ended],
                requests=[request for request in requests if request.state == "completed"],
                unfinished=unfinished(jobs, requests),
            )

    async def counts(self) -> Counts:
        """See Side; counted, not believed."""
        identifiers = memberships = 0
        sizes: defaultdict[str, int] = defaultdict(int)
        async for rows in self.rows():
            for _, held in rows:
                identifiers += 1
                memberships += len(held)
                for audience, v in held.items():
                    if is_qualified(v):
                        sizes[audience] += 1
        return Counts(identifiers, memberships, sizes)

    async def rows(self) -> AsyncGenerator[Sequence[Row], None]:
        """See Side."""
        with self._index.reading() as txn:
            stored = self._index.memberships(txn)
            while some := list(islice(stored, PIECE_IDENTIFIERS)):
                # What a deleted audience has left behind is nothing that anybody shows.
                held = ((bytes(key), self._held(packed)) for key, packed in some)
                yield [(key, decisions) for key, decisions in held if decisions]
                await trio.lowlevel.checkpoint()

    async def held(self, keys: Sequence[bytes]) -> list[Held]:
        """See Side."""
        await trio.lowlevel.checkpoint()
        with self._index.reading() as txn:
            return [self._held(self._index.packed(txn, key) or b"") for key in keys]

    async def begin(self, contents: Contents, *, merge: bool) -> list[int]:
        """See Side."""
        await trio.lowlevel.checkpoint()
        with self._index.reading() as txn:
            marks = dict(self._index.forgotten(txn))
            is_empty = not (self._ids or marks or any(True for _ in self._index.segments(txn)))
        if self._part is None and not is_empty and not merge:
            raise MigrationError(f"{self.place} holds something already; choose another one, or say --merge")
        self._take_salt(contents, marks)
        known = self._index.kind_numbers(contents.kinds)
        with self._index.writing() as txn:
            for number, row in self._new_rows(contents):
                self._index.put_audience(txn, number, row)
        self._read_audiences()
        self._gate = Gate(contents.salt)
        self._gate.load(self._floors.items(), marks.items())
        return [known[name] for name in contents.kinds]

    async def merge(self, rows: Sequence[Row]) -> None:
        """See Side."""
        await trio.lowlevel.checkpoint()
        words = [(key, self._numbers[audience] << V_BITS | v) for key, held in rows for audience, v in held.items()]
        gained: dict[bytes, Gained] = {}
        gather(gained, self._gate.admit(words))
        with self._index.writing() as txn:
            for number, by in Merging(self._index, txn).write(gained, ()).items():
                row = self._index.audience(txn, number)
                assert row is not None  # noqa: S101  # its number came from there
                self._index.put_audience(txn, number, msgspec.structs.replace(row, size=row.size + by))

    async def finish(self, contents: Contents) -> None:
        """See Side."""
        await trio.lowlevel.checkpoint()
        with self._index.writing() as txn:
            for audience_id, audience in contents.audiences.items():
                number = self._numbers.get(audience_id)
                row = None if number is None else self._index.audience(txn, number)
                if number is not None and row is not None:
                    floor = max(row.floor, audience.import_floor)
                    last_event_ms = max(row.last_event_ms, audience.last_event_ms)
                    row = msgspec.structs.replace(row, floor=floor, last_event_ms=last_event_ms)
                    self._index.put_audience(txn, number, row)
            for mark, forgotten_ms in contents.forgotten.items():
                self._index.put_forgotten(txn, mark, forgotten_ms)
            held = {record.segment_id: record for record in self._index.segments(txn)}
            newer = (record for name, record in contents.segments.items() if _is_newer(record, held.get(name)))
            self._index.put_segments(txn, newer)
        keyfile.add(keyfile.path_in(self._folder.path), contents.keys)
        self._histories.add(contents.jobs, contents.requests)

    def name(self) -> None:
        """Give a new folder its name, after `finish` and `close`. Raises OSError."""
        if self._part is not None:
            if self._path.exists():
                self._path.rmdir()
            self._part.rename(self._path)
            sync_way_to(self._path)

    def _take_salt(self, contents: Contents, marks: dict[bytes, int]) -> None:
        """Marks say nothing without the salt that they were made with."""
        if not contents.forgotten or self._index.salt() == contents.salt:
            return
        if marks:
            raise MigrationError(f"{self.place} has forgotten identifiers of its own, which cannot be told from others")
        with self._index.writing() as txn:
            self._index.put_salt(txn, contents.salt)

    def _new_rows(self, contents: Contents) -> Iterator[tuple[int, AudienceRow]]:
        number = max(self._ids, default=-1)
        for audience_id, audience in contents.audiences.items():
            is_known = audience_id in self._numbers or audience_id in self._deleted_ids
            if audience.floor and not is_known:
                # A life of it that ended: so its floor is known for what it is.
                number += 1
                deleted_ms = audience.deleted_ms or max(1, ts_ms_of(audience.floor))
                yield number, AudienceRow(audience_id, floor=audience.floor, deleted_ms=deleted_ms, swept=True)
            if audience.is_living and audience_id not in self._numbers:
                number += 1
                yield number, AudienceRow(audience_id, floor=audience.floor)

    def _read_audiences(self) -> None:
        with self._index.reading() as txn:
            rows = list(self._index.audiences(txn))
        self._ids = {number: row.audience_id for number, row in rows}
        self._deleted_ids = {row.audience_id for _, row in rows if row.deleted_ms}
        living = [(number, row) for number, row in rows if not row.deleted_ms]
        self._numbers = {row.audience_id: number for number, row in living}
        self._living = set(self._numbers.values())
        self._floors = {number: row.floor for number, row in living if row.floor}

    def _held(self, packed: bytes) -> dict[str, int]:
        words = unpack(packed)
        return {self._ids[word >> V_BITS]: word & _V_MASK for word in words if word >> V_BITS in self._living}


def _audiences(rows: Iterable[tuple[int, AudienceRow]]) -> dict[str, Audience]:
    found: dict[str, Audience] = {}
    for _, row in rows:
        # By number, so the life that an audience has now comes last.
        before = found.get(row.audience_id)
        floor = 0 if before is None else before.floor
        if row.deleted_ms:
            found[row.audience_id] = Audience(False, max(floor, row.floor), row.deleted_ms, 0, 0)
        else:
            import_floor = row.floor if row.floor > floor else 0
            found[row.audience_id] = Audience(True, floor, 0, import_floor, row.last_event_ms)
    return found


def _is_newer(record: SegmentRecord, held: SegmentRecord | None) -> bool:
    # A deletion keeps the revision that it ends.
    return held is None or (record.revision, record.definition is None) > (held.revision, held.definition is None)
