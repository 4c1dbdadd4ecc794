"""The status API: how the service is doing, for people and for the console that shows it to them.

Owns the wire form of health, limits and history. Measures nothing itself but the room on the disk.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from segmentd import __version__
from segmentd.http.errors import InvalidRequest
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.pages import query_of
from segmentd.http.readiness import Readiness
from segmentd.http.routing import Operation, Route
from segmentd.runtime.clusterhealth import SeesCluster
from segmentd.runtime.history import OUTCOMES, QUANTILES, History, TrafficPoint
from segmentd.runtime.observing import RememberingObserver
from segmentd.runtime.seam import StoreStats
from segmentd.runtime.threads import in_thread
from segmentd.settings import Settings

SEGMENTS_MAX: Final = 50
"""Segments in one request for sizes."""
_BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`."""
_NOT_STORED: Final = ("cache-control", "no-store")


class StatusApi:
    """Handlers of `/v3/status`."""

    def __init__(
        self,
        settings: Settings,
        *,
        readiness: Readiness,
        stats: Callable[[], StoreStats],
        observed: RememberingObserver,
        history: History,
        clock: Callable[[], float],
        cluster: SeesCluster | None = None,
    ) -> None:
        """clock: seconds since the epoch. cluster: where the store is in one."""
        self._cluster = cluster
        self._settings = settings
        self._readiness = readiness
        self._stats = stats
        self._observed = observed
        self._history = history
        self._clock = clock
        self._started_at = clock()

    def routes(self) -> Iterator[Route]:
        """All routes of this API."""
        # Also while the service starts: then it is of most use.
        yield Route("/v3/status", {"GET": Operation(self.get, "private")}, drains=False)
        yield Route("/v3/status/traffic", {"GET": Operation(self.traffic, "private")})
        yield Route("/v3/status/sizes", {"GET": Operation(self.sizes, "private")})

    async def get(self, _request: Request) -> Answer:
        """200 with health, figures, and what a client needs to know of the configuration."""
        disk = await in_thread(disk_of, Path(self._settings.storage.path))
        now = self._clock()
        stats = msgspec.structs.asdict(self._stats())
        shown = {
            "version": __version__,
            "python": platform.python_version(),
            "now": round(now, 3),
            "started_at": round(self._started_at, 3),
            "not_ready": self._readiness.reason(),
            "passthrough_enabled": self._settings.passthrough.enabled,
            "identifiers": [
                {"name": name, "confidence": kind.confidence} for name, kind in self._settings.identifiers.items()
            ],
            "limits": self._limits(),
            # What a store of this kind has not is left out.
            "store": {name: number for name, number in stats.items() if number is not None},
            "commits": {
                "failures": self._observed.commit_failures,
                "last_seconds": self._observed.last_commit_seconds,
            },
            "checkpoints": self._checkpoints(),
            "disk": disk,
            "cluster": None if self._cluster is None else self._cluster.report(),
        }
        return json_answer(200, shown, (_NOT_STORED,))

    def _limits(self) -> dict[str, float]:
        storage = self._settings.storage
        journal = {
            "journal_bytes_max": storage.journal_bytes_max,
            "checkpoint_journal_bytes": storage.checkpoint_journal_bytes,
        }
        return {
            "page_members_max": self._settings.members.page_members_max,
            "shrink_share_max": self._settings.imports.shrink_share_max,
            **(journal if self._cluster is None else {}),
        }

    def _checkpoints(self) -> dict[str, object] | None:
        """None where there is no journal to fold."""
        if self._cluster is not None:
            return None
        return {"failures": self._observed.checkpoint_failures, "last": self._observed.last_checkpoint}

    async def traffic(self, request: Request) -> Answer:
        """200 with the rates of the last minutes."""
        points = self._history.traffic(_since(query_of(request)))
        shown = {
            "seconds": self._history.settings.traffic_seconds,
            "points_max": self._history.settings.traffic_points_max,
            "outcomes": OUTCOMES,
            "quantiles": QUANTILES,
            "points": [_point(point) for point in points],
        }
        return json_answer(200, shown, (_NOT_STORED,))

    async def sizes(self, request: Request) -> Answer:
        """200 with the sizes of some segments over the last day; one that is unknown has none."""
        fields = query_of(request)
        ids = [part for part in fields.get("segments", "").split(",") if part]
        if not 1 <= len(ids) <= SEGMENTS_MAX:
            raise InvalidRequest(
                "segments", f"The field segments must name 1 to {SEGMENTS_MAX} segments, with commas between them."
            )
        shown = {
            "seconds": self._history.settings.size_seconds,
            "points_max": self._history.settings.size_points_max,
            "sizes": {segment_id: _pairs(self._history.sizes(segment_id)) for segment_id in ids},
        }
        return json_answer(200, shown, (_NOT_STORED,))


class Disk(msgspec.Struct, frozen=True):
    """The file system that the data is on, and how much of it the data takes."""

    total_bytes: int
    free_bytes: int
    """What segmentd may still use."""
    index_bytes: int
    journal_bytes: int


def disk_of(folder: Path) -> Disk | None:
    """Blocking. None if the folder cannot be looked at."""
    try:
        system = os.statvfs(folder)
        return Disk(
            total_bytes=system.f_blocks * system.f_frsize,
            free_bytes=system.f_bavail * system.f_frsize,
            index_bytes=_bytes_below(folder, "index"),
            journal_bytes=_bytes_below(folder, "journal"),
        )
    except OSError:
        return None


def _bytes_below(folder: Path, name: str) -> int:
    """Bytes on the disk; the files are sparse, so their lengths say nothing."""
    return sum(path.stat().st_blocks * _BLOCK_BYTES for path in folder.glob(f"{name}*/*"))


def _since(fields: dict[str, str]) -> float:
    try:
        return float(fields.get("since", "0"))
    except ValueError:
        raise InvalidRequest("since", "The field since must be a number of seconds since the epoch.") from None


def _point(point: TrafficPoint) -> dict[str, Any]:
    return {
        "at": round(point.at, 3),
        "events_per_second": point.events_per_second,
        "queries_per_second": point.queries_per_second,
        "query_seconds": point.query_seconds,
    }


def _pairs(sizes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [(round(at, 3), size) for at, size in sizes]
