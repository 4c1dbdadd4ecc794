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
_DEAD = frozenset({"fail", "fail?"})


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

    def addresses(self) -> set[Address]:
        """Every server that is known and not known to be dead."""
        found = {owner.address for owner in self.primaries.values()}
        return found.union(*self.replicas.values())


EMPTY = Layout({}, {}, {})


class _Node(NamedTuple):
    node_id: str
    address: Address
    flags: frozenset[str]
    primary_id: str
    epoch: int
    slots: tuple[tuple[int, int], ...]


def layout_of(views: Iterable[tuple[Address, str]]) -> Layout:
    """views: (a server, its answer to CLUSTER NODES). Raises ValueError where an answer is none."""
    owners: dict[int, tuple[int, Owner]] = {}
    latest: dict[str, tuple[int, _Node]] = {}
    for asked, text in views:
        for node in (_parsed(asked, line) for line in text.splitlines()):
            if node.flags & _UNREACHABLE:
                continue
            known = latest.get(node.node_id)
            if known is None or node.epoch >= known[0]:
                latest[node.node_id] = (node.epoch, node)
            for first, last in node.slots:
                for slot in range(first, last + 1):
                    if slot not in owners or owners[slot][0] < node.epoch:
                        owners[slot] = (node.epoch, Owner(node.node_id, node.address))
    found = {slot: owner for slot, (_, owner) in owners.items()}
    primaries = {owner.node_id: owner for owner in set(found.values())}
    return Layout(found, _replicas(node for _, node in latest.values()), primaries)


def _replicas(nodes: Iterable[_Node]) -> dict[str, tuple[Address, ...]]:
    replicas: dict[str, tuple[Address, ...]] = {}
    for node in nodes:
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
    return _Node(node_id, address, frozenset(flags.split(",")), primary_id, int(epoch), ranges)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
