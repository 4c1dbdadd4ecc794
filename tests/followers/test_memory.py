"""What a follower costs: its own memory does not grow with the index, whose pages all processes share."""

import os
from pathlib import Path

from bench.perprocess import Memory, memory_of
from segmentd.domain.membership import word_of
from segmentd.domain.shard import Word
from segmentd.settings import StorageSettings
from segmentd.storage.checkpoint import fold
from segmentd.storage.folder import DataFolder
from segmentd.storage.records import JournalRecord, encode_record
from segmentd.storage.visible import Visible
from tests.followers.world import Follower

SMALL, LARGE = 50_000, 500_000
RECORD_CHANGES = 10_000
KEYS_READ = 2_000
# One membership in a dict of bytes takes more than a hundred bytes, packed with four others 35.
BYTES_A_MEMBERSHIP_MAX = 4


def key(number: int) -> bytes:
    return b"\0user-%09d" % number


def held_beside(path: Path, memberships: int) -> Memory:
    """What a follower holds that has looked all over an index of so many memberships."""
    settings = StorageSettings()
    folder = DataFolder(path, journal_map_bytes=settings.journal_map_bytes, index_map_bytes=settings.index_map_bytes)
    journal, index = folder.open_journal(), folder.open_index()
    visible, page = Visible.create()
    for first in range(0, memberships, RECORD_CHANGES):
        changes: list[Word] = [(key(number), word_of(1, 2_000)) for number in range(first, first + RECORD_CHANGES)]
        audiences = [] if first else [(1, "red")]
        visible.publish(journal.append(encode_record(JournalRecord(changes=changes, audiences=audiences))))
    while fold(journal, index, changes_max=memberships).more:
        pass
    with Follower() as follower:
        follower.open(path, page)
        for first in range(0, memberships, memberships // (KEYS_READ // 100)):
            keys = [key(number) for number in range(first, first + 100)]
            assert len(follower.read(keys, ["red"])[0]) == 100
        held = memory_of(follower.pid)
    index.close()
    journal.close()
    folder.close()
    visible.close()
    os.close(page)
    return held


def test_a_follower_copies_nothing_of_the_index(tmp_path: Path) -> None:
    small, large = (held_beside(tmp_path / str(count), count) for count in (SMALL, LARGE))
    grown = large.anonymous - small.anonymous
    assert grown < BYTES_A_MEMBERSHIP_MAX * (LARGE - SMALL), (small, large)
    assert large.store > 0, "the store's pages are not told from other memory"
    assert large.store_dirty <= 64 * 1024, "a reader writes to its line in the table of readers only"
