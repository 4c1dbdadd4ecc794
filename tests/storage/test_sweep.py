"""The sweep of deleted audiences, step by step."""

from segmentd.domain.membership import word_of
from segmentd.storage.records import JournalRecord, encode_record
from segmentd.storage.sweep import Swept, sweep
from tests.storage.stored import Store


def test_a_report_that_was_lost_is_given_again(store: Store) -> None:
    """The checkpointer may die between the commit of the last step and its report."""
    store.append([(b"\0ada", word_of(1, 4)), (b"\0ada", word_of(2, 4))])
    store.journal.append(encode_record(JournalRecord(deleted=[(1, 20, 10)])))
    store.fold_all()
    assert sweep(store.index, identifiers_max=10) == Swept(numbers=[1], dropped=1)
    assert sweep(store.index, identifiers_max=10) == Swept(numbers=[1])
