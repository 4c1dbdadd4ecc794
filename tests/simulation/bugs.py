"""Deliberate mistakes, to prove that the simulation finds such: each is put into the program while a seed runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

import msgspec

from segmentd.domain import shard
from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, merge, pack, unpack
from segmentd.domain.shard import Word
from segmentd.runtime import store
from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.committer import Committer
from segmentd.runtime.following import FollowingStore
from segmentd.runtime.importer import Importer
from segmentd.runtime.router import Router
from segmentd.runtime.write import Write
from segmentd.storage import checkpoint, forgetjobs, importjobs
from segmentd.storage.checkpoint import _Gathered
from segmentd.storage.folder import DataFolder
from segmentd.storage.journal import Journal
from segmentd.storage.overlay import Overlay
from segmentd.storage.records import JournalRecord
from segmentd.storage.recovery import Recovered, recover


@contextmanager
def acknowledged_before_the_commit() -> Iterator[None]:
    """A client is answered when its write is queued."""
    submit = Committer.submit

    def submitted(self: Committer, write: Write) -> None:
        submit(self, write)
        write.reply.set(None)

    with mock.patch.object(Committer, "submit", submitted):
        yield


@contextmanager
def acknowledged_before_the_merge() -> Iterator[None]:
    """A client is answered when its write is on disk, before the shards have it."""
    dispatch = Router.dispatch

    async def dispatched(self: Router, changes: Any, forgotten: Any, visible: Callable[[], None]) -> None:
        visible()
        await dispatch(self, changes, forgotten, lambda: None)

    with mock.patch.object(Router, "dispatch", dispatched):
        yield


@contextmanager
def last_record_lost_at_recovery() -> Iterator[None]:
    """Recovery takes the end of the journal for torn."""
    records = Journal.records

    def forgetful(journal: Journal, *arguments: Any, **options: Any) -> Recovered:
        def but_the_last(after: int) -> Iterator[tuple[int, bytes]]:
            yield from list(records(journal, after))[:-1]

        with mock.patch.object(journal, "records", but_the_last):
            return recover(journal, *arguments, **options)

    with mock.patch.object(store, "recover", forgetful):
        yield


@contextmanager
def merged_by_arrival() -> Iterator[None]:
    """The decision that came last wins, whatever its time."""

    def by_arrival(packed: bytes, word: int) -> tuple[bytes, int | None]:
        merged, old = merge(packed, word)
        if old != word:
            return merged, old
        held = {each >> V_BITS: each for each in unpack(packed)}
        old = held[word >> V_BITS]
        if old == word:
            return packed, word
        held[word >> V_BITS] = word
        return pack(sorted(held.values())), old

    with mock.patch.object(shard, "merge", by_arrival):
        yield


@contextmanager
def cut_before_the_fold() -> Iterator[None]:
    """Records are cut from the journal that the index does not have yet."""
    with mock.patch.object(Checkpointing, "cut_to", property(lambda self: self._journal.last_seq)):
        yield


@contextmanager
def floors_ignored() -> Iterator[None]:
    """A qualification from before the last whole list counts, if it only comes late enough."""
    raise_floor = Gate.raise_floor

    def ignored(self: Gate, audience: int, v: int) -> None:
        raise_floor(self, audience, 0 * v)

    with mock.patch.object(Gate, "raise_floor", ignored):
        yield


@contextmanager
def forgotten_in_memory_alone() -> Iterator[None]:
    """A fold leaves what was forgotten in the index."""
    gather = checkpoint._gather

    def gathered(*arguments: Any, **options: Any) -> _Gathered:
        found = gather(*arguments, **options)
        found.forgotten.clear()
        return found

    with mock.patch.object(checkpoint, "_gather", gathered):
        yield


@contextmanager
def swept_before_the_floor() -> Iterator[None]:
    """An import does not wait until the index has everything from before its floor."""

    async def at_once(self: object) -> None:
        """Nothing is waited for."""

    with mock.patch("segmentd.runtime.wholelists.WholeLists.barrier", at_once):
        yield


@contextmanager
def torn_in_two() -> Iterator[None]:
    """An upload is written as two records."""

    async def apply(self: store.LocalStore, changes: Sequence[Any]) -> None:
        half = len(changes) // 2
        for part in (changes[:half], changes[half:]):
            await apply_as_it_is(self, part)

    apply_as_it_is = store.LocalStore.apply
    with mock.patch.object(store.LocalStore, "apply", apply):
        yield


@contextmanager
def names_of_jobs_not_synced() -> Iterator[None]:
    """The name of a job's file is not on disk when the client is told that the import is taken."""
    with (
        mock.patch.object(importjobs, "sync_folder"),
        mock.patch.object(forgetjobs, "sync_folder"),
    ):
        yield


@contextmanager
def opened_stores_not_synced() -> Iterator[None]:
    """What LMDB makes or copies, a scrub's new files too, is made valid and is not on disk."""
    with mock.patch.object(DataFolder, "_sync_store"):
        yield


@contextmanager
def scrub_forgets_the_old_files() -> Iterator[None]:
    """The files from before a scrub stay, with everything that was forgotten."""
    with mock.patch.object(DataFolder, "remove_other_generations"):
        yield


@contextmanager
def members_counted_twice() -> Iterator[None]:
    """A size is counted again when a member is told again that it is one."""
    merge_as_it_is = shard.Shard.merge

    def merged(self: shard.Shard, changes: Any) -> None:
        listed: list[Word] = list(changes)
        merge_as_it_is(self, listed)
        if len(listed) > 2:
            self.sizes[listed[0][1] >> V_BITS] += 1

    with mock.patch.object(shard.Shard, "merge", merged):
        yield


@contextmanager
def cancelled_imports_go_on() -> Iterator[None]:
    """An import that a client was told is cancelled runs again after a restart."""

    async def cancel(self: Importer, job: Any) -> bool:
        return not job.is_ended

    with mock.patch.object(Importer, "cancel", cancel):
        yield


@contextmanager
def cut_records_not_missed_by_a_follower() -> Iterator[None]:
    """A follower that was idle takes what was cut meanwhile for nothing."""

    def advance(self: FollowingStore, target: int) -> None:
        self._fold(self._files.journal.records(self._record), target)
        self._record = max(self._record, target)

    with mock.patch.object(FollowingStore, "_advance", advance):
        yield


@contextmanager
def published_by_half() -> Iterator[None]:
    """A follower shows a record before it has folded all of it."""

    def fold(self: Overlay, seq: int, record: JournalRecord) -> None:
        some = record.changes[: (len(record.changes) + 1) // 2]
        folded(self, seq, msgspec.structs.replace(record, changes=some))

    folded = Overlay.fold
    with mock.patch.object(Overlay, "fold", fold):
        yield


BUGS: Final = (
    acknowledged_before_the_commit,
    acknowledged_before_the_merge,
    last_record_lost_at_recovery,
    merged_by_arrival,
    cut_before_the_fold,
    floors_ignored,
    forgotten_in_memory_alone,
    swept_before_the_floor,
    torn_in_two,
    names_of_jobs_not_synced,
    opened_stores_not_synced,
    scrub_forgets_the_old_files,
    members_counted_twice,
    cancelled_imports_go_on,
    cut_records_not_missed_by_a_follower,
    published_by_half,
)
