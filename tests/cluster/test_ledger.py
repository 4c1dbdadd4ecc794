"""The ledger explains what some order and some fate of the decisions brings about, and nothing else."""

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.ledger import NOTHING_WRONG, Decision, Ledger, Pair

PAIR = Pair("u", "a")
decisions = st.lists(st.builds(Decision, st.just(PAIR), st.integers(1, 4), st.booleans()), max_size=5)


def ledger_of(acknowledged: list[Decision], unknown: list[Decision]) -> Ledger:
    ledger = Ledger()
    ledger.send([*acknowledged, *unknown])
    ledger.acknowledge(acknowledged)
    return ledger


@given(acknowledged=decisions, unknown=decisions)
def test_right_are_the_states_that_some_fate_of_the_unknown_ones_brings_about(
    acknowledged: list[Decision], unknown: list[Decision]
) -> None:
    fates = chain.from_iterable(combinations(unknown, count) for count in range(len(unknown) + 1))
    possible = {max((each.v for each in [*acknowledged, *applied]), default=None) for applied in fates}
    right = ledger_of(acknowledged, unknown).right_states(PAIR)
    assert (set(right), len(right)) == (possible, len(possible))


@given(acknowledged=decisions, unknown=decisions, v=st.none() | st.integers(2, 10))
def test_a_state_that_is_not_right_is_a_loss_or_unexplained(
    acknowledged: list[Decision], unknown: list[Decision], v: int | None
) -> None:
    ledger = ledger_of(acknowledged, unknown)
    findings = ledger.compare({PAIR: v}, {"a": int(v is not None and v % 2 == 0)})
    assert findings.lost_count == len([each for each in acknowledged if v is None or each.v > v])
    assert (findings == NOTHING_WRONG) == (v in ledger.right_states(PAIR))


def test_a_size_is_known_while_no_unknown_outcome_could_change_it() -> None:
    qualified, greater = Decision(PAIR, 1, qualify=True), Decision(PAIR, 2, qualify=True)
    assert ledger_of([qualified], []).expected_size("a") == 1
    assert ledger_of([qualified], [greater]).expected_size("a") == 1
    assert ledger_of([qualified], [Decision(PAIR, 2, qualify=False)]).expected_size("a") is None
    assert ledger_of([greater], [Decision(PAIR, 1, qualify=False)]).expected_size("a") == 1


def test_a_size_that_is_not_the_number_of_members_is_found() -> None:
    ledger = ledger_of([Decision(PAIR, 1, qualify=True)], [])
    assert ledger.compare({PAIR: 2}, {"a": 2}).sizes == {"a": (2, 1)}
    assert ledger.compare({PAIR: 2}, {"a": 1}) == NOTHING_WRONG


def test_a_state_of_somebody_whom_nothing_was_sent_about_is_unexplained() -> None:
    ledger = ledger_of([Decision(PAIR, 1, qualify=True)], [])
    stranger = Pair("u", "b")
    findings = ledger.compare({PAIR: 2, stranger: 8}, {"a": 1, "b": 1})
    assert findings.unexplained == {stranger: (8, [None])}
