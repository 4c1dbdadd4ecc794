"""Moving one store into another: take over, copy, finish, and look whether all has arrived.

Invariants: (1) the source is only read; (2) every step may be repeated, so an interrupted migration is started again
and goes on; (3) a migration ends well only when the target was read back and says what the source says.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from segmentd.cluster.connected import Connected
from segmentd.cluster.session import visit
from segmentd.keyfile import KeyStoreError
from segmentd.migration.clusterside import ClusterSide
from segmentd.migration.contents import (
    Contents,
    Counts,
    Differences,
    MigrationError,
    Row,
    Side,
    compare_contents,
    compare_counts,
    compare_row,
)
from segmentd.migration.folderside import FolderSide
from segmentd.settings import Settings
from segmentd.storage.errors import StorageError
from segmentd.storage.folder import DataFolder

Progress = Callable[[str, int, int], None]
"""(what is done, identifiers that are done, of how many)."""


class Wishes(NamedTuple):
    """What the user wants. sample: the share of the identifiers that is compared in the end, 0 to 1."""

    dry_run: bool = False
    merge: bool = False
    sample: float = 1.0


class Report(NamedTuple):
    """What was moved, or would be."""

    source: str
    target: str
    contents: Contents
    counts: Counts
    compared: int
    differences: Differences


def migrate(source: Settings, target: Settings, wishes: Wishes, progress: Progress) -> Report:
    """Blocking. Raises MigrationError, StorageError, VisitError, KeyStoreError, OSError."""
    if source.store.is_cluster == target.store.is_cluster:
        kind = source.store.kind
        raise MigrationError(f'both configurations say [store] kind = "{kind}"; one must be embedded, one a cluster')
    cluster = source if source.store.is_cluster else target

    async def act(connected: Connected) -> Report | Exception:
        try:
            return await _migrate(source, target, wishes, progress, connected)
        except (MigrationError, StorageError, KeyStoreError, OSError) as error:
            return error

    outcome = visit(cluster, act)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _migrate(
    source: Settings, target: Settings, wishes: Wishes, progress: Progress, connected: Connected
) -> Report:
    with ExitStack() as stack:
        folder = FolderSide(target if source.store.is_cluster else source, is_target=source.store.is_cluster)
        stack.callback(folder.close)
        settings = source if source.store.is_cluster else target
        stack.enter_context(_node_folder(settings, folder.data, is_target=target.store.is_cluster))
        cluster = ClusterSide(settings, connected)
        ours, theirs = (cluster, folder) if source.store.is_cluster else (folder, cluster)
        report = await _moved(ours, theirs, wishes, progress)
    if not wishes.dry_run and not report.differences.total:
        if target.store.is_cluster:
            await cluster.done()
        else:
            folder.name()
    return report


@contextmanager
def _node_folder(settings: Settings, other: Path, *, is_target: bool) -> Iterator[None]:
    """The node on this machine is not served meanwhile. Raises StorageError."""
    storage = settings.storage
    path = Path(storage.path)
    # A node may take over the folder of the embedded store; then that is locked already.
    if path.resolve() == other.resolve() or not (is_target or (path / "format.json").exists()):
        yield
        return
    with DataFolder(path, journal_map_bytes=storage.journal_map_bytes, index_map_bytes=storage.index_map_bytes):
        yield


async def _moved(source: Side, target: Side, wishes: Wishes, progress: Progress) -> Report:
    contents, counts = await source.contents(), await source.counts()
    if contents.unfinished:
        listed = "\n  ".join(contents.unfinished[:20])
        raise MigrationError(f"{source.place}: serve it until this is done, then stop it and begin again:\n  {listed}")
    differences = Differences()
    if wishes.dry_run:
        return Report(source.place, target.place, contents, counts, 0, differences)
    numbers = await target.begin(contents, merge=wishes.merge)
    if contents.forgotten and numbers != list(range(len(numbers))):
        raise MigrationError(
            f"{target.place} numbers identifier names differently, so the marks of forgotten identifiers would say"
            " nothing there; choose a target that was never served"
        )
    async with aclosing(_pieces(source, "copy", counts, progress)) as pieces:
        async for rows in pieces:
            await target.merge([(_renumbered(key, numbers), held) for key, held in rows])
    await target.finish(contents)
    compared = await _compared(source, target, numbers, wishes, counts, progress, differences)
    compare_contents(contents, await target.contents(), differences, exact=not wishes.merge)
    if not wishes.merge:
        compare_counts(counts, await target.counts(), differences)
    return Report(source.place, target.place, contents, counts, compared, differences)


async def _compared(
    source: Side,
    target: Side,
    numbers: Sequence[int],
    wishes: Wishes,
    counts: Counts,
    progress: Progress,
    differences: Differences,
) -> int:
    """Returns how many identifiers were compared."""
    compared = 0
    below = wishes.sample * 2**32
    async with aclosing(_pieces(source, "compare", counts, progress)) as pieces:
        async for rows in pieces:
            chosen = [(_renumbered(key, numbers), held) for key, held in rows if crc32(key) < below]
            found = await target.held([key for key, _ in chosen])
            for (key, ours), theirs in zip(chosen, found, strict=True):
                compare_row(key, ours, theirs, differences, exact=not wishes.merge)
            compared += len(chosen)
    return compared


async def _pieces(source: Side, what: str, counts: Counts, progress: Progress) -> AsyncGenerator[Sequence[Row], None]:
    """The source's rows, told to whoever watches."""
    progress(what, 0, counts.identifiers)
    done = 0
    async with aclosing(source.rows()) as rows:
        async for piece in rows:
            yield piece
            done += len(piece)
            progress(what, done, counts.identifiers)


def _renumbered(key: bytes, numbers: Sequence[int]) -> bytes:
    number = numbers[key[0]]
    return key if number == key[0] else bytes([number]) + key[1:]
