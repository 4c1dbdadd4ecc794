"""Folds of many identifiers that are alike: what is kept from one to the next never reaches one that is different."""

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.domain.membership import word_of
from segmentd.domain.shard import Word
from segmentd.storage import merging
from segmentd.storage.check import check
from segmentd.storage.merging import gather
from tests.storage.stored import Store, open_folder

MANY = [b"\0%03d" % number for number in range(24)]
FEW_WORDS = [word_of(audience, v) for audience in (1, 2) for v in (4, 5, 6)]

runs = st.builds(
    lambda first, count, word: [(key, word) for key in MANY[first : first + count]],
    st.integers(0, len(MANY) - 1),
    st.integers(1, len(MANY)),
    st.sampled_from(FEW_WORDS),
)
"""Neighbours that gain the same, as an import has them."""


@given(
    folds=st.lists(
        st.tuples(st.lists(runs, min_size=1, max_size=4), st.lists(st.sampled_from(MANY), max_size=2)), max_size=4
    )
)
@settings(max_examples=150)
def test_runs_of_equal_neighbours_are_folded_like_any_others(folds: list[tuple[list[list[Word]], list[bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as home, patch.object(merging, "PIECE_KEYS", 5):
        folder = open_folder(Path(home) / "data")
        store = Store(folder)
        for records, forgotten in folds:
            for record in records[:-1]:
                store.append(record)
            store.append(records[-1], forgotten=[(key, 5) for key in forgotten])
            store.fold_all()
            store.assert_index_is(store.state)
        store.close()
        assert check(folder).differences == []
        folder.close()


@given(records=st.lists(st.lists(st.tuples(st.sampled_from(MANY[:4]), st.sampled_from(FEW_WORDS)), max_size=6)))
def test_gathering_keeps_the_largest_word_of_each_audience(records: list[list[Word]]) -> None:
    held: dict[bytes, merging.Gained] = {}
    expected: dict[bytes, dict[int, int]] = {}
    for record in records:
        gather(held, record)
        for key, word in record:
            words = expected.setdefault(key, {})
            words[word >> 44] = max(word, words.get(word >> 44, 0))
    packed = {key: merging._packed(gain) for key, gain in held.items()}
    assert packed == {
        key: b"".join(word.to_bytes(8, "little") for _, word in sorted(words.items()))
        for key, words in expected.items()
    }
