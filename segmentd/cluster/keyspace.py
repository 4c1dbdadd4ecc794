"""Where everything is in the cluster: partitions, slots, keys, tokens. Pure.

A *partition* is what is written atomically: its users, the members of its part of each audience, and their counts lie
in one hash slot. The number of partitions is chosen once, when the cluster is first used. Their slots are spread evenly
over the 16,384, so servers that share the slots evenly share the partitions evenly.

```
{tag}f                fence: the version of the registry that a writer must know
{tag}c                hash: token → qualified members in this partition; n → users, m → memberships
{tag}l                hash: token → the largest v of its events in this partition
{tag}u<identifier>    hash: token → v
{tag}m<token>         sorted set, all scores 0: identifier keys of the qualified members
{tag}w                written after each batch, so that its server has something to wait for
{registry}…           registry: meta (hash), entries (hash), versions (sorted set)
```

A *token* stands for one life of an audience: eight bytes of a hash of its id and of how often it was deleted before. So
every node knows it without asking, and a deleted audience's memberships are never taken for those of its successor.
"""

from binascii import crc_hqx
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from zlib import crc32

SLOTS: Final = 16_384
TOKEN_BYTES: Final = 8
REGISTRY_TAG: Final = b"{registry}"
REGISTRY_KEYS: Final = (REGISTRY_TAG + b"m", REGISTRY_TAG + b"e", REGISTRY_TAG + b"v")
"""meta, entries, versions; the order in which the functions take them."""


def slot_of(tag: bytes) -> int:
    """The hash slot of keys with this tag (without its braces). Source: the Redis Cluster specification."""
    return crc_hqx(tag, 0) % SLOTS


REGISTRY_SLOT: Final = slot_of(REGISTRY_TAG[1:-1])


@lru_cache(maxsize=8)
def tags(partitions: int) -> tuple[bytes, ...]:
    """For each partition the shortest decimal number whose slot lies in its share of the slots."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < partitions:
        tag = str(number).encode()
        found.setdefault(slot_of(tag) * partitions // SLOTS, tag)
        number += 1
    return tuple(found[partition] for partition in range(partitions))


@lru_cache(maxsize=65_536)
def token_of(audience_id: str, deletions: int) -> bytes:
    """The token of an audience that was deleted so often before."""
    return blake2b(f"{deletions}:{audience_id}".encode(), digest_size=TOKEN_BYTES).digest()


class Keyspace:
    """The keys of a cluster with so many partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.slots = [slot_of(tag) for tag in tags(partitions)]
        """partition → slot."""
        braced = [b"{" + tag + b"}" for tag in tags(partitions)]
        self.fences = [tag + b"f" for tag in braced]
        self.counts = [tag + b"c" for tag in braced]
        self.latest = [tag + b"l" for tag in braced]
        self.user_prefixes = [tag + b"u" for tag in braced]
        self._member_prefixes = [tag + b"m" for tag in braced]
        self._marks = dict(zip(self.slots, (tag + b"w" for tag in braced), strict=True))

    def partition_of(self, key: bytes) -> int:
        """The partition of an identifier key."""
        return crc32(key) % self.partitions

    def user(self, key: bytes) -> bytes:
        """Where the memberships of an identifier are."""
        return self.user_prefixes[crc32(key) % self.partitions] + key

    def mark(self, slot: int) -> bytes:
        """What is written behind a batch: in the slot of a partition, or in the registry's."""
        return self._marks.get(slot, REGISTRY_TAG + b"w")

    def members(self, partition: int, token: bytes) -> bytes:
        """Where the members of an audience are that belong to a partition."""
        return self._member_prefixes[partition] + token
