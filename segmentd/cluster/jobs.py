"""Jobs of all nodes: imports and requests to forget, where every node can see them.

A job is an entry of the registry, whose rank is the time at which its node wrote it last. Its node is known by a name
that is kept in its data folder.
"""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgpack
import msgspec

from segmentd.cluster.registry import Entry, Registry
from segmentd.domain.forgetting import ForgetJob
from segmentd.domain.importjob import ImportJob
from segmentd.runtime.importmirror import JobElsewhere
from segmentd.storage.folder import sync_folder

IMPORT: Final = b"j:"
REQUEST: Final = b"q:"
_NODE_FILE: Final = "node"


def node_name(data: Path) -> str:
    """What this node is called, made at its first start. Raises OSError."""
    file = data / _NODE_FILE
    if file.exists():
        return file.read_text(encoding="ascii").strip()
    name = f"node-{secrets.token_hex(4)}"
    part = file.with_suffix(".part")
    part.write_text(name + "\n", encoding="ascii")
    part.rename(file)
    sync_folder(data)
    return name


class ImportsOfAll:
    """Implements `segmentd.runtime.importmirror.JobMirror`."""

    def __init__(self, registry: Registry, node: str) -> None:
        self._registry = registry
        self._node = node

    async def save(self, jobs: Sequence[ImportJob]) -> None:
        """See JobMirror."""
        await self._registry.register(
            [
                Entry(field, _next_rank(self._registry, field), msgpack.packb((self._node, msgspec.json.encode(job))))
                for field, job in ((_field(job.id), job) for job in jobs)
            ]
        )

    async def remove(self, job_ids: Sequence[str]) -> None:
        """See JobMirror."""
        await self._registry.unregister([_field(job_id) for job_id in job_ids])

    async def saved(self) -> Sequence[str]:
        """See JobMirror."""
        await self._registry.refresh()
        return [job.job.id for job in self._all() if job.node == self._node]

    async def get(self, job_id: str) -> JobElsewhere | None:
        """See JobMirror."""
        await self._registry.refresh()
        held = self._registry.get(_field(job_id))
        found = None if held is None else _job_of(held[1])
        return None if found is None or found.node == self._node else found

    async def load(self) -> Sequence[JobElsewhere]:
        """See JobMirror. From the copy, which is never old."""
        return [job for job in self._all() if job.node != self._node]

    def _all(self) -> list[JobElsewhere]:
        return [_job_of(entry.payload) for entry in self._registry.entries(IMPORT)]


def _field(job_id: str) -> bytes:
    return IMPORT + job_id.encode()


def _job_of(payload: bytes) -> JobElsewhere:
    node, job = msgpack.unpackb(payload)
    return JobElsewhere(msgspec.json.decode(job, type=ImportJob), node)


def _next_rank(registry: Registry, field: bytes) -> int:
    """The time, or a little more where the clock has not moved on: what is saved last is what counts."""
    return max(time.time_ns() // 1000, registry.rank(field) + 1)


class RequestsOfAll:
    """Requests to forget, of all nodes."""

    def __init__(self, registry: Registry, node: str) -> None:
        self._registry = registry
        self._node = node

    async def save(self, job: ForgetJob) -> None:
        """Have the request as it is. Raises StoreUnavailable."""
        payload = msgpack.packb((self._node, msgspec.json.encode(job)))
        field = REQUEST + job.id.encode()
        await self._registry.register([Entry(field, _next_rank(self._registry, field), payload)])

    async def remove(self, request_id: str) -> None:
        """Have it no more. Raises StoreUnavailable."""
        await self._registry.unregister([REQUEST + request_id.encode()])

    async def get(self, request_id: str) -> ForgetJob | None:
        """A request of any node as it is now. Raises StoreUnavailable."""
        await self._registry.refresh()
        held = self._registry.get(REQUEST + request_id.encode())
        if held is None:
            return None
        _, job = msgpack.unpackb(held[1])
        return msgspec.json.decode(job, type=ForgetJob)
