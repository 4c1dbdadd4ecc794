"""The outbox: what this node has sent to the cluster lately, on this node's own disk.

A replica that had not yet received the last writes may be elected when its primary dies; then the cluster has lost what
was acknowledged. So each node keeps what it has sent for some time, and sends it again to every new owner, and after
its own start. Merging is idempotent, so that is free of risk.

The outbox is a row of journals (`segmentd.storage.journal`), each in a folder of its own. At every `rotate` a new one
is begun and the one before the last is removed with its file, so that no byte of a forgotten identifier stays. What
was sent is kept until the second rotation after it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import msgpack
import trio

from segmentd.cluster.registry import Entry
from segmentd.runtime.committhread import CommitThread
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import sync_folder
from segmentd.storage.journal import Journal

_PREFIX = "outbox-"


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
        numbers = sorted(int(path.name.removeprefix(_PREFIX)) for path in folder.glob(f"{_PREFIX}*"))
        self._next = numbers[-1] + 1 if numbers else 1
        self._journals = [self._opened(number) for number in numbers]
        self._rotate()

    async def append(self, changes: Sequence[Sent] = (), entries: Sequence[Entry] = ()) -> None:
        """Returns when they are on disk. Raises StoreFullError, StoreFailureError."""
        blob = msgpack.packb((changes, [(entry.field, entry.rank, entry.payload) for entry in entries]))
        await self._run(lambda: self._journals[-1].append(blob))

    async def rotate(self) -> None:
        """Begin a new journal and remove all but the last one before it. Raises StorageError, OSError."""
        await self._run(self._rotate)

    async def changes(self, wanted: Callable[[bytes], bool]) -> list[Sent]:
        """What was sent of the wanted keys and is still kept, oldest first. Raises StorageError."""
        found: list[Sent] = await self._run(
            lambda: [Sent(*change) for changes, _ in self._records() for change in changes if wanted(change[0])]
        )
        return found

    async def entries(self) -> list[Entry]:
        """What was sent to the registry and is still kept. Raises StorageError."""
        found: list[Entry] = await self._run(
            lambda: [Entry(*entry) for _, entries in self._records() for entry in entries]
        )
        return found

    async def _run(self, act: Callable[[], Any]) -> Any:
        async with self._turn:
            return await self._thread.run(act)

    def _rotate(self) -> None:
        self._journals.append(self._opened(self._next))
        sync_folder(self._folder)
        self._next += 1
        while len(self._journals) > 2:
            oldest = self._journals.pop(0)
            oldest.close()
            rmtree(oldest.path)
        sync_folder(self._folder)

    def close(self) -> None:
        """Nothing may be under way."""
        self._thread.close()
        for journal in self._journals:
            journal.close()

    def _records(self) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
        for journal in list(self._journals):
            for seq, blob in journal.records(0):
                try:
                    changes, entries = msgpack.unpackb(blob, use_list=False)
                except (ValueError, msgpack.UnpackException) as error:
                    raise StorageError(f"{journal.path}: record {seq} is damaged") from error
                yield changes, entries

    def _opened(self, number: int) -> Journal:
        path = self._folder / f"{_PREFIX}{number:08}"
        return Journal(path, map_bytes=self._map_bytes)
