"""Comparing a list with the members of its audience, both in key order."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.storage.importscan import ScanArguments, scan, sweep_line, swept_key
from segmentd.storage.index import AUDIENCE_KEY, V_VALUE, Index

MAP_BYTES = 16 << 20
VALUES = st.sets(st.text("ab \x7eé", min_size=1, max_size=4).map(str.encode), max_size=12)
KINDS = st.sampled_from([9, 10, 11])  # 10 as a byte is a line feed


def test_a_key_survives_the_sweep_file_whatever_its_kind() -> None:
    for kind in range(256):
        key = bytes([kind]) + "é, x".encode()
        assert swept_key(sweep_line(key)) == key
        assert sweep_line(key).count(b"\n") == 1


@given(
    members=st.dictionaries(
        st.tuples(KINDS, st.text("ab \x7eé", min_size=1, max_size=4)), st.integers(0, 9), max_size=20
    ),
    listed=VALUES,
    floor=st.integers(0, 10),
)
@settings(deadline=None, max_examples=40)
def test_the_walk_finds_what_sets_find(
    tmp_path_factory: pytest.TempPathFactory, members: dict[tuple[int, str], int], listed: set[bytes], floor: int
) -> None:
    path = tmp_path_factory.mktemp("scan")
    (path / "index").mkdir()
    keys = {bytes([kind]) + value.encode(): v for (kind, value), v in members.items()}
    index = Index(path / "index", map_bytes=MAP_BYTES)
    with index.writing() as txn:
        for audience in (1, 2, 3):
            for key, v in keys.items():
                if audience == 2 or v % 2:
                    txn.put(AUDIENCE_KEY.pack(audience) + key, V_VALUE.pack(v), db=index.members_db)
    index.close()
    (path / "staged").write_bytes(b"".join(value + b"\n" for value in sorted(listed)))
    out = path / "sweep"
    report = scan(ScanArguments(str(path / "index"), MAP_BYTES, 2, str(path / "staged"), 10, floor, str(out)))
    named = {bytes([10]) + value for value in listed}
    outdated = sorted(key for key, v in keys.items() if key not in named and v < floor)
    assert (report.members, report.listed, report.outdated) == (len(keys), len(named & keys.keys()), len(outdated))
    assert [swept_key(line) for line in _lines(out)] == outdated


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)
