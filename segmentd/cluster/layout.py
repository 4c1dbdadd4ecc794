"""Who owns which slot, told from what the servers say of each other. Pure.

Servers may disagree for a moment: an owner that was frozen still takes itself for one after another has been elected.
Each election raises the configuration epoch of the winner, so of two that claim a slot the one with the higher epoch
is right. Source of the form: CLUSTER NODES in the Redis Cluster specification.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from segmentd.cluster.link import Address

_FIELDS_MIN = 8
_UNREACHABLE = frozenset({"noaddr", "handshake"})
_FAILED = "fail"
_DEAD = frozenset({_FAILED, "fail?"})


class Owner(NamedTuple):
    """A primary: its identity and where it listens."""

    node_id: str
    address: Address


class Layout(NamedTuple):
    """The cluster as it is known now."""

    owners: Mapping[int, Owner]
    """slot → its owner; slots that nobody claims are missing."""
    replicas: Mapping[str, tuple[Address, ...]]
    """node id of a primary → its replicas that are not known to be dead."""
    primaries: Mapping[str, Owner]
    """node id → every primary that owns a slot."""
    absent: tuple[Address, ...] = ()
    """Servers that seem dead and own nothing: replicas, or primaries that were replaced."""
    dead: Mapping[Address, str] = {}  # never changed
    """Servers that are known to be dead, → the primary that they followed, "-" where they were one."""

    def addresses(self) -> set[Address]:
        """Every server that is known and not known to be dead."""
        found = {owner.address for owner in self.primaries.values()}
        return found.union(*self.replicas.values())


EMPTY = Layout({}, {}, {})


class _Node(NamedTuple):
    node_id: str
    address: Address
    primary_id: str
    epoch: int
    flags: frozenset[str]
    slots: tuple[tuple[int, int], ...]


class Told(NamedTuple):
    """What servers say, without what they all say: equal if nothing has changed."""

    claims: frozenset[tuple[int, Owner, int, int]]
    """(epoch, who, first slot, last slot)."""
    replicas: Mapping[str, tuple[Address, ...]]
    dead: frozenset[tuple[str, Address, str, bool]] = frozenset()
    """(node id, address, the primary that it followed or "-", whether most say so) of servers that seem dead."""


def is_view(asked: Address, text: str) -> bool:
    """Whether the answer of a server is one to CLUSTER NODES."""
    try:
        return bool([_parsed(asked, line) for line in text.splitlines()])
    except ValueError:
        return False


def told_by(views: Iterable[tuple[Address, str]]) -> Told:
    """views: (a server, its answer to CLUSTER NODES). Raises ValueError where an answer is none."""
    claims: set[tuple[int, Owner, int, int]] = set()
    latest: dict[str, _Node] = {}
    for asked, text in views:
        for node in (_parsed(asked, line) for line in text.splitlines()):
            if node.flags & _UNREACHABLE:
                continue
            known = latest.get(node.node_id)
            if known is None or node.epoch >= known.epoch:
                latest[node.node_id] = node
            owner = Owner(node.node_id, node.address)
            claims.update((node.epoch, owner, first, last) for first, last in node.slots)
    dead = frozenset(
        (node.node_id, node.address, node.primary_id, _FAILED in node.flags)
        for node in latest.values()
        if node.flags & _DEAD
    )
    return Told(frozenset(claims), _replicas(latest.values()), dead)


def layout_of(told: Told) -> Layout:
    """Of two that claim a slot the one with the higher epoch has it."""
    found: dict[int, Owner] = {}
    for _, owner, first, last in sorted(told.claims):
        found.update(dict.fromkeys(range(first, last + 1), owner))
    owners = {id(owner): owner for owner in found.values()}
    primaries = {owner.node_id: owner for owner in owners.values()}
    away = [one for one in sorted(told.dead) if one[0] not in primaries]
    absent = tuple(sorted(address for _, address, _, _ in away))
    dead = {address: primary_id for _, address, primary_id, has_failed in away if has_failed}
    return Layout(found, told.replicas, primaries, absent, dead)


def _replicas(nodes: Iterable[_Node]) -> dict[str, tuple[Address, ...]]:
    replicas: dict[str, tuple[Address, ...]] = {}
    for node in sorted(nodes):
        if node.primary_id != "-" and not node.flags & _DEAD:
            replicas[node.primary_id] = (*replicas.get(node.primary_id, ()), node.address)
    return replicas


def _parsed(asked: Address, line: str) -> _Node:
    """One line of the answer of the server at `asked`."""
    fields = line.split()
    if len(fields) < _FIELDS_MIN:
        raise ValueError(f"no line of CLUSTER NODES: {line!r}")
    node_id, where, flags, primary_id, _, _, epoch, _, *slots = fields
    host, _, port = where.partition(",")[0].partition("@")[0].rpartition(":")
    # A server that does not know its own address leaves it out; it is where it was asked.
    address = Address(host or asked.host, int(port or 0))
    # Slots that move are told in brackets, and still belong to whom they leave.
    ranges = tuple(_range(text) for text in slots if not text.startswith("["))
    return _Node(node_id, address, primary_id, int(epoch), frozenset(flags.split(",")), ranges)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
