"""The invariant that everything else rests on: the state is a function of the set of events."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from segmentd.domain.events import Change, parse_events
from segmentd.domain.membership import V_BITS, is_qualified, unpack
from segmentd.domain.placement import shard_of
from segmentd.domain.shard import Shard, Word, load, packed_of
from tests.domain.strategies import (
    AUDIENCES,
    KEYS,
    NOW_MS,
    RULES,
    Model,
    changes,
    encoded,
    event_of,
    keyed_words,
    model_of,
)


class Shards:
    """Several shards that share their sizes, as the store has them."""

    def __init__(self, count: int) -> None:
        self.sizes: defaultdict[int, int] = defaultdict(int)
        self.all = [Shard(self.sizes) for _ in range(count)]

    def merge(self, words: Iterable[Word]) -> None:
        """Hand each word to the shard that owns it."""
        parts: dict[int, list[Word]] = {}
        for key, word in words:
            parts.setdefault(shard_of(key, len(self.all)), []).append((key, word))
        for number, part in parts.items():
            self.all[number].merge(part)

    def take(self, body: bytes, *, ndjson: bool) -> None:
        """Take an upload, as it comes from a client."""
        parsed = parse_events(body, ndjson=ndjson, rules=RULES, now_ms=NOW_MS)
        self.merge((key, AUDIENCES.index(audience) << V_BITS | v) for key, audience, v in parsed.changes)

    def state(self) -> Model:
        """Everything that is held."""
        return {
            (key, AUDIENCES[word >> V_BITS]): word & ((1 << V_BITS) - 1)
            for shard in self.all
            for key, packed in shard.items()
            for word in unpack(packed)
        }

    def recount(self) -> dict[int, int]:
        """Members by audience, counted afresh."""
        counted: defaultdict[int, int] = defaultdict(int)
        for shard in self.all:
            for audience, size in shard.recount().items():
                counted[audience] += size
        return dict(counted)


def _sizes_of(model: Model) -> dict[int, int]:
    sizes: defaultdict[int, int] = defaultdict(int)
    for (_, audience_id), v in model.items():
        sizes[AUDIENCES.index(audience_id)] += is_qualified(v)
    return {audience: size for audience, size in sizes.items() if size}


@st.composite
def retellings(draw: st.DrawFn) -> tuple[list[Change], list[list[Change]]]:
    """A set of changes, and a permutation of it with repetitions, split into batches."""
    told = draw(st.lists(changes, min_size=1, max_size=20))
    retold = draw(st.permutations(told + draw(st.lists(st.sampled_from(told), max_size=10))))
    cuts = sorted(draw(st.lists(st.integers(0, len(retold)), max_size=5)))
    batches = [retold[start:end] for start, end in zip([0, *cuts], [*cuts, len(retold)], strict=True)]
    return told, [batch for batch in batches if batch]


def _body(batch: Sequence[Change], form: str) -> tuple[bytes, bool]:
    listed: list[Any] = [event_of(change) for change in batch]
    if form == "ndjson":
        return b"\n".join(map(encoded, listed)), True
    return encoded(listed[0] if form == "single" and len(listed) == 1 else listed), False


@given(retellings(), st.sampled_from(["array", "single", "ndjson"]), st.sampled_from([1, 2, 8]))
def test_any_order_repetition_and_split_of_the_same_events_gives_the_same_state(
    retelling: tuple[list[Change], list[list[Change]]], form: str, count: int
) -> None:
    told, batches = retelling
    shards = Shards(count)
    for batch in batches:
        body, ndjson = _body(batch, form)
        shards.take(body, ndjson=ndjson)
    model = model_of(told)
    assert shards.state() == model
    assert {audience: size for audience, size in shards.sizes.items() if size} == _sizes_of(model) == shards.recount()
    assert sum(shard.memberships for shard in shards.all) == len(model)
    assert sum(shard.identifiers() for shard in shards.all) == len({key for key, _ in model})


@given(st.lists(keyed_words))
def test_sizes_equal_a_recount_after_every_single_merge(listed: list[Word]) -> None:
    shards = Shards(2)
    for word in listed:
        shards.merge([word])
        assert {audience: size for audience, size in shards.sizes.items() if size} == shards.recount()


@given(st.lists(keyed_words), st.lists(keyed_words))
def test_a_loaded_shard_goes_on_like_the_one_it_was_loaded_from(before: list[Word], after: list[Word]) -> None:
    original = Shard(defaultdict(int))
    original.merge(before)
    loaded = Shard(defaultdict(int, original.sizes))
    assert load([loaded], original.items()) == original.identifiers()
    for shard in (original, loaded):
        shard.merge(after)
    assert dict(loaded.items()) == dict(original.items())
    assert (loaded.sizes, loaded.memberships) == (original.sizes, original.memberships)


def test_disqualify_wins_at_equal_time_in_either_order() -> None:
    qualify, disqualify = (KEYS[0], 2_000), (KEYS[0], 2_001)
    for order in ([qualify, disqualify], [disqualify, qualify]):
        shard = Shard(defaultdict(int))
        shard.merge(order)
        assert shard.words(KEYS[0]) == (2_001,)
        assert shard.recount() == {}
        assert shard.sizes.get(0, 0) == 0


def test_an_older_decision_changes_nothing() -> None:
    shard = Shard(defaultdict(int))
    shard.merge([(KEYS[0], 4_000)])
    shard.merge([(KEYS[0], 3_999), (KEYS[0], 2_000), (KEYS[0], 4_000)])
    assert shard.words(KEYS[0]) == (4_000,)
    assert (shard.sizes[0], shard.memberships) == (1, 1)


def test_an_unknown_identifier_has_no_words() -> None:
    assert Shard(defaultdict(int)).words(b"\0nobody") == ()


@given(st.lists(keyed_words), st.integers(1, 5))
def test_loading_places_every_identifier_where_it_is_looked_for(listed: list[Word], count: int) -> None:
    original = Shard(defaultdict(int))
    original.merge(listed)
    shards = [Shard(defaultdict(int)) for _ in range(count)]
    load(shards, original.items())
    for key, _ in original.items():
        assert shards[shard_of(key, count)].words(key) == original.words(key)


@given(words=st.lists(keyed_words), count=st.integers(1, 5))
def test_a_look_up_over_all_shards_finds_what_the_one_that_owns_the_key_has(words: list[Word], count: int) -> None:
    shards = Shards(count)
    found = packed_of(shards.all)
    shards.merge(words)
    held = {key: packed for shard in shards.all for key, packed in shard.items()}
    assert {key: found(key) for key, _ in words} == held
    assert found(b"unknown") is None
