"""A real `LocalStore` on a real folder, folded and swept by hand in this process instead of by the child."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from segmentd.domain.events import Change
from segmentd.domain.membership import is_qualified
from segmentd.runtime.store import LocalStore
from segmentd.settings import LimitsSettings, RuntimeSettings, StorageSettings
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.sweep import sweep

MAP_BYTES = 64 * 1024 * 1024


class Unobserved:
    """Nobody looks at the metrics."""

    def committed(self, *, requests: int, changes: int, journal_bytes: int, seconds: float) -> None:
        """Nothing."""

    def commit_failed(self) -> None:
        """Nothing."""

    def checkpointed(self, *, changes: int, seconds: float) -> None:
        """Nothing."""

    def checkpoint_failed(self) -> None:
        """Nothing."""


def data_folder(path: Path) -> DataFolder:
    return DataFolder(path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)


class HandDrivenStore(LocalStore):
    """Folds and sweeps when the test says so."""

    def fold(self, changes_max: int = 1_000_000) -> None:
        """One fold."""
        folded = fold(self._journal, self._index, changes_max=changes_max)
        self.checkpointing.folded_seq = max(self.checkpointing.folded_seq, folded.seq)

    def sweep(self, identifiers_max: int) -> None:
        """One step of the sweep."""
        for number in sweep(self._index, identifiers_max=identifiers_max).numbers:
            self.checkpointing.unswept.discard(number)
            self._deletions.swept(number)

    def held(self) -> Iterator[tuple[bytes, dict[str, int]]]:
        """(key, audience id → v) of everything that queries can see."""
        for shard in self._shards:
            for key, _ in shard.items():
                if found := self.memberships(key):
                    yield key, found

    def recounted(self) -> bool:
        """Whether the sizes equal a recount."""
        counted: dict[int, int] = {}
        for shard in self._shards:
            for number, size in shard.recount().items():
                counted[number] = counted.get(number, 0) + size
        return counted == {number: size for number, size in self._sizes.items() if size}

    async def settle(self) -> None:
        """Wait until the shards have dropped everything that they are to drop."""
        while any(deletion.in_memory for deletion in self._audiences.deletions.values()):
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def opened(path: Path, shards: int = 2) -> AsyncIterator[HandDrivenStore]:
    """A recovered store with its actors running; at the end it is torn down at once, as a crash would."""
    with data_folder(path) as folder:
        store = HandDrivenStore(
            folder,
            storage=StorageSettings(path=str(path)),
            runtime=RuntimeSettings(shards=shards),
            limits=LimitsSettings(),
            observer=Unobserved(),
        )
        store.recover()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.committer.run)
            for actor in store._actors:
                nursery.start_soon(actor.run)
            yield store
            nursery.cancel_scope.cancel()
        store.close_environments()


def seen(changes: Iterator[tuple[bytes, dict[str, int]]]) -> dict[tuple[bytes, str], int]:
    """(key, audience id) → v."""
    return {(key, audience): v for key, found in changes for audience, v in found.items()}


def sizes_of(state: dict[tuple[bytes, str], int], audiences: list[str]) -> dict[str, int]:
    """Members of each audience."""
    return {audience: sum(is_qualified(v) for (_, of), v in state.items() if of == audience) for audience in audiences}


def change(key: bytes, audience: str, ts_ms: int, qualified: bool) -> Change:
    return key, audience, ts_ms * 2 + (not qualified)
