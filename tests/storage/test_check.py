"""`check` is silent about a good store, and names each kind of damage."""

from collections.abc import Callable
from pathlib import Path

import lmdb
import msgpack
import pytest

from segmentd.domain.membership import pack, word_of
from segmentd.domain.segments import SegmentDefinition, SegmentRecord
from segmentd.storage.check import DIFFERENCES_LISTED_MAX, CheckReport, check
from segmentd.storage.errors import FolderUnusableError, StorageError
from segmentd.storage.folder import DataFolder
from tests.storage.stored import MAP_BYTES, Store, open_folder

ADA, BOB = b"\0ada", b"\0bob"
MEMBER = (1).to_bytes(4, "big")


def journal_key(seq: int) -> bytes:
    return seq.to_bytes(8, "big")


@pytest.fixture
def good(tmp_path: Path) -> DataFolder:
    """Two identifiers, two audiences, one segment; three records are folded, two are not."""
    folder = open_folder(tmp_path / "data")
    store = Store(folder)
    store.append([(ADA, word_of(1, 2)), (BOB, word_of(1, 4)), (BOB, word_of(2, 5))])
    store.append([(ADA, word_of(2, 6))])
    store.append(segments=[SegmentRecord("s", 1, SegmentDefinition("audience_1"), 0)])
    store.fold_all()
    store.append([(ADA, word_of(1, 9))])
    store.append([(ADA, word_of(2, 9))])
    store.close()
    folder.close()
    return folder


def edit(folder: DataFolder, database: str | None, change: Callable[[lmdb.Transaction], object]) -> None:
    """Change the store behind the program's back. database: of the index, or None for the journal."""
    path = folder.path / ("index" if database else "journal")
    with lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=16) as env:
        db = env.open_db(database.encode(), create=False) if database else None
        with env.begin(write=True, db=db) as txn:
            assert change(txn) is not False


def differences(folder: DataFolder) -> list[str]:
    report = check(folder)
    assert len(report.differences) == min(report.differences_total, DIFFERENCES_LISTED_MAX)
    return report.differences


def test_a_good_store_has_no_differences_and_is_counted(good: DataFolder) -> None:
    assert check(good) == CheckReport(
        identifiers=2, memberships=4, members=3, audiences=2, segments=1, folded_seq=3, journal_records=5
    )


def test_a_store_that_was_never_written_is_good(tmp_path: Path) -> None:
    with open_folder(tmp_path / "data") as folder:
        Store(folder).close()
        assert check(folder) == CheckReport()


def test_a_store_whose_journal_was_cut_is_good(good: DataFolder) -> None:
    edit(good, None, lambda txn: [txn.delete(journal_key(seq)) for seq in (1, 2, 3)])
    assert check(good).differences == []


DAMAGE: list[tuple[str, str | None, Callable[[lmdb.Transaction], object], list[str]]] = [
    (
        "a member row is gone",
        "members",
        lambda txn: txn.delete(MEMBER + ADA),
        ["#0:'ada' is qualified in audience 1 but not listed", "members: 2 are listed, 3 are qualified"],
    ),
    (
        "a member row is too many",
        "members",
        lambda txn: txn.put(MEMBER + b"\0eve", bytes(8)),
        ["members: 4 are listed, 3 are qualified"],
    ),
    (
        "a member row has another time",
        "members",
        lambda txn: txn.put(MEMBER + BOB, (6).to_bytes(8, "little")),
        ["#0:'bob' in audience 1 is listed with another time"],
    ),
    (
        "a member row has no time",
        "members",
        lambda txn: txn.put(MEMBER + BOB, b"x"),
        ["#0:'bob' in audience 1 is listed with another time"],
    ),
    (
        "a size is wrong",
        "audiences",
        lambda txn: txn.put(MEMBER, msgpack.packb(("audience_1", 7, 0, 0))),
        ["audience_1 is stored with size 7, and a recount gives another"],
    ),
    (
        "an audience is gone",
        "audiences",
        lambda txn: txn.delete(MEMBER),
        ["audiences: number 1 has 2 members and no entry"],
    ),
    (
        "an audience has two numbers",
        "audiences",
        lambda txn: txn.put(b"\0\0\0\x05", msgpack.packb(("audience_1", 0, 0, 0))),
        ["audience_1 has two numbers, 1 and 5"],
    ),
    (
        "words descend",
        "memberships",
        lambda txn: txn.put(BOB, pack([word_of(2, 5), word_of(1, 4)])),
        ["the words of #0:'bob' are not ascending"],
    ),
    (
        "an audience stands twice",
        "memberships",
        lambda txn: txn.put(BOB, pack([word_of(1, 4), word_of(2, 5), word_of(2, 7)])),
        ["the words of #0:'bob' are not ascending"],
    ),
    (
        "half a word",
        "memberships",
        lambda txn: txn.put(b"\0eve", b"1234"),
        ["#0:'eve' has 4 bytes, no multiple of 8"],
    ),
    (
        "no words",
        "memberships",
        lambda txn: txn.put(b"\0eve", b""),
        ["#0:'eve' has 0 bytes"],
    ),
    (
        "a gap in the journal",
        None,
        lambda txn: txn.delete(journal_key(4)),
        ["journal: record 3 is followed by 5"],
    ),
    (
        "the journal begins too late",
        None,
        lambda txn: [txn.delete(journal_key(seq)) for seq in range(1, 5)],
        ["journal: begins at 5, but the index ends at 3"],
    ),
    (
        "a damaged record",
        None,
        lambda txn: txn.put(journal_key(5), b"\0\0\0\0\x80"),
        ["journal: record 5 is damaged"],
    ),
]


@pytest.mark.parametrize(("name", "database", "change", "expected"), DAMAGE, ids=[damage[0] for damage in DAMAGE])
def test_each_kind_of_damage_is_named(
    good: DataFolder,
    name: str,
    database: str | None,
    change: Callable[[lmdb.Transaction], object],
    expected: list[str],
) -> None:
    edit(good, database, change)
    found = differences(good)
    for text in expected:
        assert any(text in difference for difference in found), found


def test_the_list_of_differences_is_cut_and_the_total_is_not(good: DataFolder) -> None:
    rows = [b"\0%d" % number for number in range(30)]
    edit(good, "memberships", lambda txn: [txn.put(row, b"1") for row in rows])
    report = check(good)
    assert (len(report.differences), report.differences_total) == (DIFFERENCES_LISTED_MAX, 30)


@pytest.mark.parametrize("part", ["journal", "index"])
def test_a_store_that_cannot_be_read_is_named(good: DataFolder, part: str) -> None:
    damaged = good.path / part / "data.mdb"
    damaged.write_bytes(b"\xff" * 100_000)
    with pytest.raises(FolderUnusableError, match=f"{damaged}: is damaged: the meta page at byte 0"):
        check(good)


def recovery_error(folder: DataFolder) -> str:
    with open_folder(folder.path) as reopened:
        store = Store(reopened)
        with pytest.raises(StorageError) as refused:
            store.assert_recovery_gives_state()
        store.close()
    return str(refused.value)


def test_recovery_refuses_a_damaged_record_and_names_it(good: DataFolder) -> None:
    edit(good, None, lambda txn: txn.put(journal_key(5), b"\0\0\0\0"))
    assert recovery_error(good) == f"{good.path / 'journal'}: record 5: is damaged, its checksum is wrong"


def test_recovery_refuses_a_journal_with_a_missing_record_and_names_it(good: DataFolder) -> None:
    edit(good, None, lambda txn: txn.delete(journal_key(4)))
    assert recovery_error(good) == f"{good.path / 'journal'}: record 4 is missing, the next one is 5"


def test_check_changes_nothing(good: DataFolder) -> None:
    before = {path: path.read_bytes() for path in good.path.rglob("data.mdb")}
    check(good)
    assert {path: path.read_bytes() for path in good.path.rglob("data.mdb")} == before
