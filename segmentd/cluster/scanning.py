"""All identifiers that a cluster holds, server by server: for commands that look at everything."""

from collections.abc import AsyncIterator
from typing import Final

import structlog
from coredis.exceptions import RedisError

from segmentd.cluster.connected import Connected
from segmentd.cluster.link import LinkDownError
from segmentd.domain.refusals import StoreUnavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_COUNT: Final = b"2000"
_TRIES_MAX: Final = 10


async def user_keys(connected: Connected) -> AsyncIterator[list[bytes]]:
    """Identifier keys, in pieces and no order. Where owners change meanwhile, all are told again.

    Whatever is there all the time is told at least once. Raises StoreUnavailable.
    """
    for _ in range(_TRIES_MAX):
        before = connected.servers.layout
        try:
            for owner in before.primaries.values():
                async for keys in _of_server(connected, owner.node_id):
                    yield keys
        except LinkDownError as error:
            log.warning("a server went away while it was read; all are read again", reason=str(error))
        await connected.servers.look()
        if connected.servers.layout.owners == before.owners:
            return
    raise StoreUnavailable("The owners of the cluster's slots change all the time.", 1)


async def _of_server(connected: Connected, node_id: str) -> AsyncIterator[list[bytes]]:
    """Raises LinkDownError, StoreUnavailable."""
    space, cursor = connected.keyspace, b"0"
    prefixes = set(space.user_prefixes)
    while True:
        owner = connected.servers.layout.primaries.get(node_id)
        if owner is None:
            return
        link = connected.servers.link(owner.address, "scan")
        (answer,) = await link.call([(b"SCAN", cursor, b"MATCH", b"{*}u*", b"COUNT", _COUNT, b"TYPE", b"hash")])
        if isinstance(answer, RedisError):
            raise StoreUnavailable(f"{owner.address}: {answer}", 1)
        cursor = bytes(answer[0])
        users = [(user, user.index(b"}") + 2) for user in map(bytes, answer[1])]
        if keys := [user[at:] for user, at in users if user[:at] in prefixes]:
            yield keys
        if cursor == b"0":
            return
