"""Which slot a key belongs to, and the live moving of slots from one master to another."""

import binascii
from collections.abc import Sequence

from tests.cluster.nodes import Node
from tests.cluster.resp import Connection, Credentials

SLOTS = 16_384

# Of one MIGRATE; bounds how long the two masters answer nobody else.
KEYS_MOVED_AT_ONCE = 50
MIGRATE_MILLISECONDS_MAX = 10_000


def key_slot(key: str | bytes) -> int:
    """The slot of a key: CRC-16 (XModem) of what stands in its first non-empty braces, or of all of it."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{")
    end = data.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


def move(slots: Sequence[int], source: Node, target: Node, masters: Sequence[Node], credentials: Credentials) -> int:
    """Move `slots` with their keys, one after another, while clients go on; returns how many keys moved.

    slots: owned by `source`; one that an earlier call left half moved is finished. masters: all of them; they are told
    instead of waiting for gossip.
    """
    moved = 0
    with source.connection() as giving, target.connection() as taking:
        for slot in slots:
            taking.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
            giving.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
            moved += _move_keys(slot, giving, target.port, credentials)
            # The taker first: were it last, and it died in between, nobody would own the slot.
            taking.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
            giving.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        for other in (node for node in masters if node not in {source, target}):
            with other.connection() as connection:
                connection.pipeline([("CLUSTER", "SETSLOT", slot, "NODE", target.node_id) for slot in slots])
    return moved


def _move_keys(slot: int, giving: Connection, port: int, credentials: Credentials) -> int:
    """Move every key of `slot`; new ones cannot come, since the giver sends whoever asks for one to the taker."""
    proof: list[str] = []
    if credentials.password is not None:
        proof = ["AUTH", credentials.password]
        if credentials.user is not None:
            proof = ["AUTH2", credentials.user, credentials.password]
    moved = 0
    while keys := giving.call("CLUSTER", "GETKEYSINSLOT", slot, KEYS_MOVED_AT_ONCE):
        assert isinstance(keys, list)
        names = [key for key in keys if isinstance(key, bytes)]
        giving.call("MIGRATE", "127.0.0.1", port, "", 0, MIGRATE_MILLISECONDS_MAX, *proof, "KEYS", *names)
        moved += len(names)
    return moved
