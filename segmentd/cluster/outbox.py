"""The outbox: what this node has sent to the cluster lately, on this node's own disk.

A replica that had not yet received the last writes may be elected when its primary dies; then the cluster has lost what
was acknowledged. So each node keeps what it has sent for some time, and sends it again to every new owner, and after
its own start. Merging is idempotent, so that is free of risk.

The outbox is a row of journals (`segmentd.storage.journal`), each in a folder of its own. At every `rotate` a new one
is begun and the one before the last is removed with its file, so that no byte of a forgotten identifier stays. What
was sent is kept until the second rotation after it, through any number of starts, and for as long as it is being read.

A record that cannot be read is told of and left out: what it holds is in the cluster, and only a replica that was
elected without it would need it.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, NamedTuple

import msgpack
import structlog
import trio

from segmentd.cluster.registry import Entry
from segmentd.runtime.committhread import CommitThread
from segmentd.storage.folder import sync_folder
from segmentd.storage.journal import Journal

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PREFIX: Final = "outbox-"
_KEPT: Final = 2
"""Journals that stay after a rotation."""
_PIECE_CHANGES: Final = 5_000
"""Changes that are read at once, so that what is sent meanwhile does not wait for long."""


class Sent(NamedTuple):
    """One change as it was sent. taken_ms: of the list that it comes from, None where it is an event's."""

    key: bytes
    token: bytes
    v: int
    taken_ms: int | None


class Outbox:
    """Everything is done in one thread of its own, one thing at a time: no journal is closed while it is read."""

    def __init__(self, folder: Path, *, map_bytes: int) -> None:
        """Open what an earlier process has left, and a new journal. Raises StorageError, OSError."""
        self._folder = folder
        self._map_bytes = map_bytes
        self._thread: CommitThread[Any] = CommitThread()
        self._turn = trio.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*")]
        numbers = sorted(int(name) for name in names if name.isdecimal())
        self._next = numbers[-1] + 1 if numbers else 1
        self._journals = [self._opened(number) for number in numbers]
        self._reading = 0
        if not numbers:
            self._rotate()
        self._thread.start()

    async def append(self, changes: Sequence[Sent] = (), entries: Sequence[Entry] = ()) -> None:
        """Returns when they are on disk. Raises StoreFullError, StoreFailureError."""
        blob = msgpack.packb((changes, [(entry.field, entry.rank, entry.payload) for entry in entries]))
        await self._run(lambda: self._journals[-1].append(blob))

    async def rotate(self) -> None:
        """Begin a new journal and remove all but the last one before it. Raises StorageError, OSError."""
        await self._run(self._rotate)

    async def replay(self, wanted: Callable[[bytes], bool], act: Callable[[list[Sent]], Awaitable[None]]) -> None:
        """Have `act` do something about what was sent of the wanted keys and is kept, oldest first, piece by piece.

        What is sent after the call may be left out. Raises StorageError and what `act` raises.
        """
        self._reading += 1
        try:
            for journal, last_seq in await self._run(lambda: [(each, each.last_seq) for each in self._journals]):
                after = 0
                while after < last_seq:
                    piece, after = await self._run(partial(_piece, journal, after, last_seq, wanted))
                    if piece:
                        await act(piece)
        finally:
            self._reading -= 1

    async def entries(self) -> list[Entry]:
        """What was sent to the registry and is still kept; of each entry the largest rank. Raises StorageError."""
        found: list[Entry] = await self._run(self._entries)
        return found

    async def _run(self, act: Callable[[], Any]) -> Any:
        async with self._turn:
            return await self._thread.run(act)

    def _rotate(self) -> None:
        self._journals.append(self._opened(self._next))
        sync_folder(self._folder)
        self._next += 1
        while len(self._journals) > _KEPT and not self._reading:
            oldest = self._journals.pop(0)
            oldest.close()
            rmtree(oldest.path)
        sync_folder(self._folder)

    def bytes_held(self) -> int:
        """What the records that are kept take."""
        return sum(journal.bytes_held for journal in self._journals)

    def close(self) -> None:
        """Nothing may be under way."""
        self._thread.close()
        for journal in self._journals:
            journal.close()

    def _entries(self) -> list[Entry]:
        found: dict[bytes, Entry] = {}
        for journal in self._journals:
            for _, _, entries in _records(journal, 0):
                for field, rank, payload in entries:
                    if field not in found or found[field].rank < rank:
                        found[field] = Entry(field, rank, payload)
        return list(found.values())

    def _opened(self, number: int) -> Journal:
        path = self._folder / f"{_PREFIX}{number:08}"
        return Journal(path, map_bytes=self._map_bytes)


def _records(journal: Journal, after: int) -> Iterator[tuple[int, Sequence[Any], Sequence[Any]]]:
    """(seq, changes, entries) of every record that can be read."""
    for seq, blob in journal.records(after):
        try:
            changes, entries = msgpack.unpackb(blob, use_list=False)
            yield seq, [Sent(*change) for change in changes], entries
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            log.error(
                "a record of the outbox is damaged and left out", path=str(journal.path), seq=seq, reason=str(error)
            )


def _piece(journal: Journal, after: int, last_seq: int, wanted: Callable[[bytes], bool]) -> tuple[list[Sent], int]:
    """Some of the wanted changes behind a record, and the last record that was looked at."""
    found: list[Sent] = []
    looked = 0
    for seq, changes, _ in _records(journal, after):
        found += [change for change in changes if wanted(change.key)]
        looked += len(changes)
        if seq >= last_seq or looked >= _PIECE_CHANGES:
            return found, seq
    return found, last_seq
