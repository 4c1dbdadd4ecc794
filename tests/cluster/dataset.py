"""Everything that is really in a cluster, read from its masters, whatever wrote it."""

from tests.cluster.cluster import Cluster
from tests.cluster.nodes import Node
from tests.cluster.resp import Connection

Value = bytes | frozenset[bytes] | dict[bytes, bytes]
"""A string, a set, or a hash."""

SCANNED_AT_ONCE = 1_000


def read(cluster: Cluster) -> dict[bytes, Value]:
    """Every key of every master with its value; no key may be on two of them."""
    whole: dict[bytes, Value] = {}
    for master in cluster.masters():
        part = read_node(master)
        assert not whole.keys() & part.keys(), f"{master} has keys that another master has as well"
        whole |= part
    return whole


def read_node(node: Node) -> dict[bytes, Value]:
    """Every key that one server has, a replica included, with its value."""
    with node.connection() as connection:
        # A replica answers with what it has only when it is told that old answers are welcome.
        connection.call("READONLY")
        return {key: _value(connection, key) for key in _keys(connection)}


def _keys(connection: Connection) -> set[bytes]:
    keys: set[bytes] = set()
    cursor = b"0"
    while True:
        reply = connection.call("SCAN", cursor, "COUNT", SCANNED_AT_ONCE)
        assert isinstance(reply, list)
        cursor, found = reply[0], reply[1]  # type: ignore[assignment]
        assert isinstance(found, list)
        keys |= {key for key in found if isinstance(key, bytes)}
        if cursor == b"0":
            return keys


def _value(connection: Connection, key: bytes) -> Value:
    kind = connection.text("TYPE", key)
    if kind == "string":
        reply = connection.call("GET", key)
        assert isinstance(reply, bytes), f"{key!r} went away while it was read"
        return reply
    reply = connection.call(*{"hash": ("HGETALL", key), "set": ("SMEMBERS", key)}[kind])
    assert isinstance(reply, list)
    parts = [part for part in reply if isinstance(part, bytes)]
    return frozenset(parts) if kind == "set" else dict(zip(parts[::2], parts[1::2], strict=True))
