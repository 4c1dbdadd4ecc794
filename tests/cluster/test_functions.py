"""What runs inside the servers, on every kind of server: merging, fencing, forgetting, dropping, and the registry."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentd.cluster import connected
from segmentd.cluster.keyspace import REGISTRY_KEYS
from tests.cluster.cluster import Cluster
from tests.cluster.engines import Engine, all_engines
from tests.cluster.nodes import Settings
from tests.cluster.resp import Connection, Reply, ReplyError, Word

SOURCE = (Path(connected.__file__).parent / "functions.lua").read_bytes()
MARGIN = 1 << 20
TOKENS = [b"token-%d" % number for number in range(3)] + [b"\x00\xff\r\n{}:*"]
KEYS = [b"\0ann", b"\0bob", b"\x01", b"\0\r\n\xff{x}\0"]
NUMBERS = count()


class Partition:
    """One partition, called as a node calls it; a fresh one for each example."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.tag = b"{1}t%d-" % next(NUMBERS)

    def key(self, name: bytes) -> bytes:
        return self.tag + name

    def fcall(self, function: str, keys: list[bytes], *arguments: Word) -> Reply:
        return self.connection.call("FCALL", function, len(keys), *keys, *arguments)

    def merge(self, changes: list[tuple[bytes, bytes, int]], known: int = 0, *, events: bool = True) -> Reply:
        positions: dict[bytes, int] = {}
        packed: list[object] = []
        for key, token, v in changes:
            user = positions.setdefault(self.key(b"u" + key), len(positions) + 4)
            members = positions.setdefault(self.key(b"m" + token), len(positions) + 4)
            packed += (user, members, token, key, str(v))
        keys = [self.key(b"f"), self.key(b"c"), self.key(b"l"), *positions]
        return self.fcall("segmentd_merge", keys, known, int(events), msgpack.packb(packed, use_bin_type=False))

    def fence(self, version: int) -> Reply:
        return self.fcall("segmentd_fence", [self.key(b"f")], version)

    def forget(self, key: bytes, tokens: list[bytes], known: int = 0) -> Reply:
        members = [self.key(b"m" + token) for token in tokens]
        return self.fcall(
            "segmentd_forget", [self.key(b"f"), self.key(b"c"), self.key(b"u" + key), *members], known, key, *tokens
        )

    def drop(self, keys: list[bytes], tokens: list[bytes]) -> Reply:
        return self.fcall("segmentd_drop", [self.key(b"c"), *(self.key(b"u" + key) for key in keys)], *tokens)

    def hash(self, name: bytes) -> dict[bytes, int]:
        answer = self.connection.call("HGETALL", self.key(name))
        assert isinstance(answer, list)
        return {bytes(field): int(value) for field, value in zip(answer[::2], answer[1::2], strict=True)}  # type: ignore[arg-type]

    def members(self, token: bytes) -> set[bytes]:
        answer = self.connection.call("ZRANGE", self.key(b"m" + token), 0, -1)
        assert isinstance(answer, list)
        return {bytes(key) for key in answer}  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=all_engines() or [None], ids=lambda engine: engine and engine.product)
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """To the one server of a cluster of each kind, which has the functions."""
    engine: Engine | None = request.param
    if engine is None:
        pytest.skip("there is no server of Valkey or Redis here")
    folder = tmp_path_factory.mktemp("one")
    quick: Settings = {"min-replicas-to-write": 0, "appendfsync": "no"}
    with Cluster(folder, masters=1, replicas=0, settings=quick, engine=engine) as one, one.nodes[0].connection() as to:
        assert to.call("FUNCTION", "LOAD", "REPLACE", SOURCE) == b"segmentd_1"
        yield to


@pytest.fixture
def partition(connection: Connection) -> Partition:
    return Partition(connection)


def test_of_two_decisions_the_larger_stays_and_only_news_are_counted(partition: Partition) -> None:
    key, token = KEYS[3], TOKENS[3]
    assert partition.merge([(key, token, 10)]) == 1
    assert partition.merge([(key, token, 10), (key, token, 8), (key, token, 9)]) == 0
    assert (partition.hash(b"u" + key), partition.members(token)) == ({token: 10}, {key})
    assert partition.merge([(key, token, 11)]) == 1
    assert (partition.hash(b"u" + key), partition.members(token)) == ({token: 11}, set())
    assert partition.hash(b"c") == {b"n": 1, b"m": 1, token: 0}


def test_a_version_is_kept_digit_by_digit(partition: Partition) -> None:
    largest = 2**53 - 2
    assert partition.merge([(KEYS[0], TOKENS[0], largest - 2)]) == 1
    assert partition.merge([(KEYS[0], TOKENS[0], largest)]) == 1
    assert partition.connection.call("HGET", partition.key(b"u" + KEYS[0]), TOKENS[0]) == b"%d" % largest


def test_only_events_say_when_the_latest_event_was(partition: Partition) -> None:
    partition.merge([(KEYS[0], TOKENS[0], 10)], events=False)
    assert partition.hash(b"l") == {}
    partition.merge([(KEYS[0], TOKENS[0], 6), (KEYS[1], TOKENS[0], 8), (KEYS[1], TOKENS[0], 7)])
    assert partition.hash(b"l") == {TOKENS[0]: 8}


def test_a_writer_that_knows_too_little_is_refused_and_changes_nothing(partition: Partition) -> None:
    assert partition.merge([(KEYS[0], TOKENS[0], 10)], known=3) == 1
    assert partition.fence(7) == b"7"
    assert partition.fence(5) == b"7", "a fence only rises"
    with pytest.raises(ReplyError, match=r"^SEGMENTD_STALE 7"):
        partition.merge([(KEYS[0], TOKENS[0], 12)], known=6)
    with pytest.raises(ReplyError, match=r"^SEGMENTD_STALE 7"):
        partition.forget(KEYS[0], TOKENS, known=6)
    assert partition.hash(b"u" + KEYS[0]) == {TOKENS[0]: 10}
    assert partition.merge([(KEYS[0], TOKENS[0], 12)], known=7) == 1


def test_many_changes_in_one_call(partition: Partition) -> None:
    changes = [(b"\0%d" % number, TOKENS[number % 2], 2 * number + 2) for number in range(20_000)]
    assert partition.merge(changes) == len(changes)
    assert partition.hash(b"c") == {b"n": 20_000, b"m": 20_000, TOKENS[0]: 10_000, TOKENS[1]: 10_000}


def test_one_call_with_everything_about_one_identifier(partition: Partition) -> None:
    tokens = [b"%08d" % number for number in range(9_000)]
    assert partition.merge([(KEYS[0], token, 2) for token in tokens]) == len(tokens)
    assert partition.forget(KEYS[0], tokens[:-1]) == 0, "it has one more than those named"
    assert len(partition.hash(b"u" + KEYS[0])) == len(tokens)
    assert partition.forget(KEYS[0], tokens) == 1
    assert set(partition.hash(b"c").values()) == {0}


def test_as_many_tokens_are_dropped_as_a_node_names_at_once(partition: Partition) -> None:
    tokens = [b"%08d" % number for number in range(1_000)]
    partition.merge([(KEYS[0], token, 2) for token in tokens] + [(KEYS[1], TOKENS[0], 2), (KEYS[1], tokens[0], 3)])
    assert partition.drop([KEYS[0], KEYS[1], b"\0nobody"], tokens) == len(tokens) + 1
    counted = partition.hash(b"c")
    assert (counted[b"n"], counted[b"m"]) == (1, 1)


class Model:
    """What a partition holds, in the simplest way there is."""

    def __init__(self) -> None:
        self.users: dict[bytes, dict[bytes, int]] = {}
        self.latest: dict[bytes, int] = {}

    def merge(self, changes: list[tuple[bytes, bytes, int]], events: bool) -> None:
        for key, token, v in changes:
            held = self.users.setdefault(key, {})
            held[token] = max(v, held.get(token, -1))
            if events:
                self.latest[token] = max(v, self.latest.get(token, -1))

    def forget(self, key: bytes) -> None:
        self.users.pop(key, None)

    def drop(self, tokens: list[bytes]) -> None:
        for key, held in list(self.users.items()):
            self.users[key] = {token: v for token, v in held.items() if token not in tokens}
            if not self.users[key]:
                del self.users[key]

    def members(self, token: bytes) -> set[bytes]:
        return {key for key, held in self.users.items() if token in held and held[token] % 2 == 0}


CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(TOKENS), st.integers(0, 9)), max_size=12)
STEPS = st.one_of(
    st.tuples(st.just("merge"), CHANGES, st.booleans()),
    st.tuples(st.just("forget"), st.sampled_from(KEYS), st.none()),
    st.tuples(st.just("drop"), st.lists(st.sampled_from(TOKENS), min_size=1, unique=True, max_size=2), st.none()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, max_size=10))
def test_counts_and_members_are_exact_after_anything(
    connection: Connection, steps: list[tuple[str, object, object]]
) -> None:
    partition, model = Partition(connection), Model()
    for name, what, flag in steps:
        if name == "merge":
            partition.merge(what, events=bool(flag))  # type: ignore[arg-type]
            model.merge(what, bool(flag))  # type: ignore[arg-type]
        elif name == "forget":
            assert partition.forget(what, TOKENS) == 1  # type: ignore[arg-type]
            model.forget(what)  # type: ignore[arg-type]
        else:
            _drop_whole(partition, what)  # type: ignore[arg-type]
            model.drop(what)  # type: ignore[arg-type]
    held = {key: partition.hash(b"u" + key) for key in KEYS}
    assert {key: tokens for key, tokens in held.items() if tokens} == model.users
    assert {token: partition.members(token) for token in TOKENS} == {token: model.members(token) for token in TOKENS}
    counted = partition.hash(b"c")
    assert {token: counted.get(token, 0) for token in TOKENS} == {token: len(model.members(token)) for token in TOKENS}
    assert counted.get(b"n", 0) == len(model.users)
    assert counted.get(b"m", 0) == sum(map(len, model.users.values()))


def _drop_whole(partition: Partition, tokens: list[bytes]) -> None:
    """As a node does: what the users have, then the members and the counts."""
    partition.drop(KEYS, tokens)
    partition.connection.call("UNLINK", *(partition.key(b"m" + token) for token in tokens))
    partition.connection.call("HDEL", partition.key(b"c"), *tokens)


class Entries:
    """The registry, empty, called as a node calls it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.call("DEL", *REGISTRY_KEYS)

    def call(self, function: str, *arguments: Word) -> list[Reply]:
        answer = self.connection.call("FCALL", f"segmentd_{function}", len(REGISTRY_KEYS), *REGISTRY_KEYS, *arguments)
        return answer if isinstance(answer, list) else [answer]

    def held(self) -> dict[bytes, tuple[bytes, int]]:
        """field → (rank:payload, the version that it got last)."""
        answer = self.connection.call("HGETALL", REGISTRY_KEYS[1])
        assert isinstance(answer, list)
        return {
            bytes(field): (bytes(text), int(self.connection.call("ZSCORE", REGISTRY_KEYS[2], field)))  # type: ignore[arg-type]
            for field, text in zip(answer[::2], answer[1::2], strict=True)
        }


@pytest.fixture
def entries(connection: Connection) -> Entries:
    return Entries(connection)


def test_the_larger_rank_stays_and_each_change_has_a_version_of_its_own(entries: Entries) -> None:
    payload = b"\0:\xff\r\n:"
    [first] = entries.call("register", "a", "", 4, payload)
    assert entries.call("register", "a", "", 4, "other", "b", "", 0, "new") == [first + 1]  # type: ignore[operator]
    assert entries.call("register", "a", "", 3, "older") == [first + 1]  # type: ignore[operator]
    assert entries.held() == {b"a": (b"4:" + payload, first), b"b": (b"0:new", first + 1)}  # type: ignore[operator]


def test_an_entry_that_is_not_as_expected_refuses_the_whole_call(entries: Entries) -> None:
    [first] = entries.call("register", "a", -1, 4, "x")
    assert entries.call("register", "b", "", 1, "y", "a", 3, 5, "y") == [-1, b"a", 4]
    assert entries.call("register", "b", "", 1, "y", "c", 0, 5, "y") == [-1, b"c", -1]
    assert entries.held() == {b"a": (b"4:x", first)}
    assert entries.call("register", "a", 4, 5, "y") == [first + 1]  # type: ignore[operator]


def test_a_call_whose_answer_was_lost_finds_its_own_entry_as_expected(entries: Entries) -> None:
    [first] = entries.call("register", "a", -1, 0, "mine")
    assert entries.call("register", "a", -1, 0, "mine") == [first]
    assert entries.call("register", "a", -1, 0, "another's") == [-1, b"a", 0]


def test_what_is_unregistered_leaves_nothing(entries: Entries) -> None:
    entries.call("register", "a", "", 4, "x", "b", "", 4, "x")
    assert entries.call("unregister", "a", "never") == [2]
    assert list(entries.held()) == [b"b"]


def test_a_server_that_has_taken_the_registry_over_gives_out_no_version_twice(entries: Entries) -> None:
    [version] = entries.call("register", "a", "", 4, "x")
    assert entries.call("inherit", 10**9) == [version], "it owns the registry already"
    # As a replica that was elected: what the former owner wrote last is not there.
    entries.connection.call("HSET", REGISTRY_KEYS[0], "owner", "another", "version", 7)
    assert entries.call("register", "a", "", 5, "x") == [7 + MARGIN + 1]
    entries.connection.call("HSET", REGISTRY_KEYS[0], "owner", "another")
    assert entries.call("inherit", 10**9) == [10**9 + MARGIN]
    assert entries.call("inherit", 10**12) == [10**9 + MARGIN]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    calls=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(-1, 3), st.integers(0, 4)), max_size=4),
        max_size=8,
    )
)
def test_the_registry_is_what_a_model_says(
    connection: Connection, calls: list[list[tuple[str, int | None, int]]]
) -> None:
    entries, model = Entries(connection), dict[str, int]()
    for call in calls:
        arguments = [
            word
            for field, expected, rank in call
            for word in (field, "" if expected is None else expected, rank, "payload")
        ]
        answer = entries.call("register", *arguments)
        wrong = [
            field
            for field, expected, rank in call
            if expected is not None and model.get(field, -1) not in {expected, rank}
        ]
        assert answer[:2] == ([-1, wrong[0].encode()] if wrong else answer[:1])
        if not wrong:
            for field, _, rank in call:
                model[field] = max(rank, model.get(field, -1))
    assert {field: text for field, (text, _) in entries.held().items()} == {
        field.encode(): b"%d:payload" % rank for field, rank in model.items()
    }
