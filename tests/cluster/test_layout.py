"""Who owns which slot, whatever the servers say of each other; where keys are; which settings are no promise."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.cluster.keyspace import REGISTRY_KEYS, REGISTRY_SLOT, SLOTS, Keyspace, slot_of, tags, token_of
from segmentd.cluster.layout import Layout, Owner, is_view, layout_of, told_by
from segmentd.cluster.link import Address
from segmentd.cluster.promises import Checked, replicas_checked, setting_problems
from tests.cluster.slots import key_slot

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
HERE = Address("10.0.0.9", 7000)


def line(node_id: str, where: str, flags: str, of: str = "-", epoch: int = 1, *slots: str) -> str:
    return " ".join([node_id, where, flags, of, "0", "1700000000000", str(epoch), "connected", *slots])


def seen(*views: str, asked: Address = HERE) -> Layout:
    return layout_of(told_by([(asked, view) for view in views]))


def owned(layout: Layout) -> dict[str, tuple[int, int, int]]:
    """node id → (first slot, last slot, how many)."""
    found: dict[str, list[int]] = {}
    for slot, owner in sorted(layout.owners.items()):
        found.setdefault(owner.node_id, []).append(slot)
    return {node: (slots[0], slots[-1], len(slots)) for node, slots in found.items()}


def test_slots_are_told_as_ranges_alone_or_with_those_that_are_moving() -> None:
    layout = seen(
        "\n".join(
            [
                line(A, "10.0.0.1:7001@17001", "myself,master", "-", 1, "0-8191", "16383", f"[93->-{B}]"),
                line(B, "10.0.0.2:7002@17002", "master", "-", 2, "8192-16382", f"[93-<-{A}]"),
                line(C, "10.0.0.3:7003@17003", "slave", A, 1),
            ]
        )
    )
    assert owned(layout) == {A: (0, 16383, 8193), B: (8192, 16382, 8191)}
    assert layout.owners[93] == Owner(A, Address("10.0.0.1", 7001)), "a slot that moves still belongs to whom it leaves"
    assert layout.replicas == {A: (Address("10.0.0.3", 7003),)}
    assert set(layout.primaries) == {A, B}
    assert layout.addresses() == {Address(f"10.0.0.{number}", 7000 + number) for number in (1, 2, 3)}


def test_a_former_owner_that_was_frozen_does_not_count_whoever_is_asked_first() -> None:
    frozen = "\n".join([line(A, "h:1@2", "myself,master", "-", 3, "0-16383"), line(B, "h:3@4", "slave", A, 3)])
    elected = "\n".join([line(A, "h:1@2", "master,fail", "-", 3), line(B, "h:3@4", "myself,master", "-", 7, "0-16383")])
    for views in ([frozen, elected], [elected, frozen], [elected]):
        layout = seen(*views)
        assert {owner.node_id for owner in layout.owners.values()} == {B}
        assert set(layout.primaries) == {B}
        assert layout.replicas == {}


@pytest.mark.parametrize("flags", ["handshake", "master,noaddr", "noaddr,slave"])
def test_a_server_that_cannot_be_reached_owns_nothing(flags: str) -> None:
    assert seen(line(A, ":0@0", flags, "-", 9, "0-5")).owners == {}


@pytest.mark.parametrize("flags", ["slave,fail", "slave,fail?"])
def test_a_dead_replica_does_not_count_and_a_dead_owner_stays_one_until_another_is_elected(flags: str) -> None:
    view = "\n".join([line(A, "h:1@2", "master,fail", "-", 3, "0-16383"), line(B, "h:3@4", flags, A, 3)])
    layout = seen(view)
    assert layout.replicas == {}
    assert layout.owners[0].node_id == A


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("10.0.0.1:7001@17001", Address("10.0.0.1", 7001)),
        ("10.0.0.1:7001@17001,redis-0.redis", Address("10.0.0.1", 7001)),
        ("10.0.0.1:7001@17001,,tls-port=0,shard-id=abc", Address("10.0.0.1", 7001)),
        ("2001:db8::1:7001@17001", Address("2001:db8::1", 7001)),
        (":7001@17001", Address(HERE.host, 7001)),
        ("redis-0.redis.local:7001", Address("redis-0.redis.local", 7001)),
    ],
)
def test_where_a_server_listens_is_told_in_several_forms(where: str, address: Address) -> None:
    assert seen(line(A, where, "myself,master", "-", 1, "7")).owners == {7: Owner(A, address)}


@pytest.mark.parametrize("text", ["", "ERR This instance has cluster support disabled", "a b c d e f g h", "\ufffd"])
def test_what_is_no_view_is_told_from_one(text: str) -> None:
    assert not is_view(HERE, text)
    assert is_view(HERE, line(A, "h:1@2", "myself,master"))


@given(
    nodes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_the_layout_is_a_function_of_the_set_of_views(nodes: list[tuple[int, int, int]], order: object) -> None:
    views = [
        line(f"{number:040x}", f"h:{number + 1}@9", "master", "-", epoch, f"{min(a, b)}-{max(a, b)}")
        for number, (epoch, a, b) in enumerate(nodes)
    ]
    shuffled = [*views, *views]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert seen(*shuffled) == seen(*views) == seen("\n".join(views))
    for slot, owner in seen(*views).owners.items():
        claims = [epoch for epoch, a, b in nodes if min(a, b) <= slot <= max(a, b)]
        assert nodes[int(owner.node_id, 16)][0] == max(claims)


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 48, 100, 1_024, 4_096])
def test_partitions_are_spread_evenly_over_the_slots_and_their_names_are_short(partitions: int) -> None:
    space = Keyspace(partitions)
    shares = [slot * partitions // SLOTS for slot in space.slots]
    assert shares == list(range(partitions))
    assert max(map(len, tags(partitions))) <= 6
    assert REGISTRY_SLOT not in space.slots
    assert all(key_slot(key) == REGISTRY_SLOT for key in (*REGISTRY_KEYS, space.mark(REGISTRY_SLOT)))


@given(key=st.binary(max_size=40), token=st.binary(min_size=8, max_size=8))
def test_all_keys_of_a_partition_lie_in_its_slot_whatever_bytes_an_identifier_has(key: bytes, token: bytes) -> None:
    space = Keyspace(48)
    partition = space.partition_of(key)
    names = [
        space.user(key),
        space.members(partition, token),
        space.fences[partition],
        space.counts[partition],
        space.latest[partition],
        space.mark(space.slots[partition]),
    ]
    assert {key_slot(name) for name in names} == {space.slots[partition]}
    assert len(set(names)) == len(names)
    assert slot_of(tags(48)[partition]) == space.slots[partition]


def test_each_life_of_an_audience_has_a_token_of_its_own() -> None:
    names = ["a", "b", "1:a", "", "é"]
    found = {token_of(name, deletions) for name in names for deletions in range(20)}
    assert len(found) == 100
    assert {len(token) for token in found} == {8}


SAFE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "1",
}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"appendonly": "no"}, r"appendonly = no; must be yes"),
        ({"appendfsync": "everysec"}, r"appendfsync = everysec; must be always"),
        ({"maxmemory": "1000000", "maxmemory-policy": "allkeys-lru"}, r"maxmemory-policy = allkeys-lru; must be noev"),
        ({"min-replicas-to-write": "0"}, r"min-replicas-to-write = 0; must be 1 or more"),
    ],
)
def test_each_setting_that_cannot_keep_the_promise_is_named(changed: Mapping[str, str], complaint: str) -> None:
    assert setting_problems(HERE, SAFE, 1) == []
    (problem,) = setting_problems(HERE, {**SAFE, **changed}, 1)
    assert problem.startswith(f"{HERE}: ")
    assert re.search(complaint, problem)


def test_what_is_no_risk_is_no_complaint() -> None:
    assert setting_problems(HERE, {**SAFE, "maxmemory": "1000000"}, 1) == []
    assert setting_problems(HERE, {**SAFE, "maxmemory-policy": "allkeys-lru"}, 1) == [], "nothing is ever evicted"
    assert setting_problems(HERE, {**SAFE, "min-replicas-to-write": "0"}, 0) == []


def test_a_server_that_does_not_tell_its_settings_is_not_trusted() -> None:
    assert len(setting_problems(HERE, {}, 1)) == 3


def test_one_replica_more_is_needed_than_has_to_acknowledge() -> None:
    owner = Owner(A, HERE)
    two = (Address("h", 1), Address("h", 2))
    layout = Layout({0: owner}, {A: two}, {A: owner})
    assert replicas_checked(layout, 1) == replicas_checked(layout, 2) == Checked([], [])
    ((problem,), passing, _) = replicas_checked(layout, 3)
    assert "has 2 replicas; 3 are needed" in problem
    assert not passing
    ((problem,), _, _) = replicas_checked(Layout({0: owner}, {}, {A: owner}), 1)
    assert "has 0 replicas; 2 are needed" in problem
    ((problem,), _, _) = replicas_checked(layout, 0)
    assert "replicas_acknowledged_min = 0" in problem


def test_a_primary_may_lack_as_many_replicas_as_servers_are_away_and_no_more() -> None:
    view = "\n".join(
        [
            line(A, "h:1@2", "myself,master", "-", 3, "0-9"),
            line(B, "h:2@3", "slave", A, 3),
            line(C, "h:3@4", "master,fail", "-", 1),
        ]
    )
    layout = seen(view)
    assert layout.absent == (Address("h", 3),)
    weak, (passing,), _ = replicas_checked(layout, 1)
    assert not weak
    assert "h:1: has 1 replicas; 2 are needed" in passing
    ((problem,), _, _) = replicas_checked(layout, 3)
    assert "h:1: has 1 replicas; 3 are needed" in problem
    assert seen(view.replace("master,fail", "master")).absent == ()
    # A moment after an election the other replica still follows the one that was replaced.
    layout = seen(view.replace(f"slave {A}", f"slave {C}"))
    weak, (passing,), _ = replicas_checked(layout, 1)
    assert not weak
    assert "h:1: has 0 replicas; 2 are needed" in passing
