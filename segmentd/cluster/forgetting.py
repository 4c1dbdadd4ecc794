"""Forgetting for good in a cluster: what is left of an identifier once nobody shows it any more.

That is its keys in the append-only files of the servers, in the outboxes of the nodes, and in lists that nodes have
staged. Append-only files are written anew, outboxes drop what is older than two of their turns, and lists end with
their imports. A server or a node that is away is waited for, unless it never comes back: then it is out of the cluster.
"""

from pathlib import Path
from typing import Final

import structlog
import trio

from segmentd.cluster.jobs import ImportsOfAll, RequestsOfAll
from segmentd.cluster.link import Address, LinkDownError
from segmentd.cluster.store import ClusterStore
from segmentd.domain.forgetting import ForgetJob
from segmentd.runtime.forgetnotes import FolderNotes
from segmentd.runtime.scrubbing import ScrubFailedError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.5
_TURNS: Final = 2


class ClusterForgets:
    """Implements `segmentd.runtime.forgetting.ForgetsAndScrubs`."""

    def __init__(self, store: ClusterStore, outbox_seconds: float) -> None:
        self._store = store
        self._outbox_seconds = outbox_seconds
        self.forget = store.forget
        self.failure = store.failure

    async def scrub(self) -> None:
        """Have no byte left anywhere of what was forgotten before the call. Raises ScrubFailedError."""
        # First the outboxes: what is sent again out of them would come into the append-only files.
        await trio.sleep(_TURNS * self._outbox_seconds)
        servers = self._store.connected.servers
        await servers.look()
        try:
            async with trio.open_nursery() as nursery:
                for address in servers.layout.addresses():
                    nursery.start_soon(self._rewrite, address)
        except* LinkDownError as group:
            raise ScrubFailedError(str(group.exceptions[0])) from group

    async def _rewrite(self, address: Address) -> None:
        """Have one server write its append-only file anew. Raises LinkDownError, ScrubFailedError."""
        link = self._store.connected.servers.link(address, "layout")
        (before,) = await link.call([(b"BGREWRITEAOF",)])
        if isinstance(before, Exception) and "progress" not in str(before):
            raise LinkDownError(f"{address} does not write its append-only file anew: {before}")
        if isinstance(before, Exception):
            # The one that is running may have begun before.
            await self._rewritten(address)
            await link.call([(b"BGREWRITEAOF",)])
        await self._rewritten(address)

    async def _rewritten(self, address: Address) -> None:
        link = self._store.connected.servers.link(address, "layout")
        while True:
            await trio.sleep(_LOOK_SECONDS)
            (answer,) = await link.call([(b"INFO", b"persistence")])
            fields = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
            if fields.get("aof_rewrite_in_progress") == "0" and fields.get("aof_rewrite_scheduled") == "0":
                if fields.get("aof_last_bgrewrite_status") != "ok":
                    raise LinkDownError(f"{address} could not write its append-only file anew")
                return


class ClusterNotes:
    """Implements `segmentd.runtime.forgetnotes.ForgetNotes`: in this node's folder, and told to all nodes."""

    def __init__(self, data: Path, requests: RequestsOfAll, imports: ImportsOfAll) -> None:
        self._ours = FolderNotes(data)
        self._requests = requests
        self._imports = imports
        self.load = self._ours.load

    async def write(self, job: ForgetJob) -> None:
        """See ForgetNotes."""
        await self._ours.write(job)
        await self._requests.save(job)

    async def remove(self, request_id: str) -> None:
        """See ForgetNotes."""
        await self._requests.remove(request_id)
        await self._ours.remove(request_id)

    async def elsewhere(self, request_id: str) -> ForgetJob | None:
        """See ForgetNotes."""
        return await self._requests.get(request_id)

    async def staged_imports(self) -> set[str]:
        """See ForgetNotes: of all nodes."""
        theirs = {found.job.id for found in await self._imports.load() if not found.job.is_ended}
        return await self._ours.staged_imports() | theirs
