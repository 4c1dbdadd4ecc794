"""How a cluster is doing, as one node sees it: plain values for people and metrics, made by a store that is in one."""

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

Role = Literal["primary", "replica"]


class ServerHealth(msgspec.Struct, frozen=True):
    """One server of the cluster. answers: whether it did when it was asked last."""

    address: str
    role: Role
    answers: bool
    partitions: int
    """That it owns; 0 of a replica."""
    replicas: int
    """That follow it, as far as it is known; 0 of a replica."""


class ClusterHealth(msgspec.Struct, frozen=True):
    """As of now. Times are seconds since the epoch, ages are seconds."""

    servers: list[ServerHealth]
    partitions: int
    partitions_away: int
    """Without an owner that answers."""
    registry_version: int
    registry_age_seconds: float
    """Since it was read last."""
    registry_failures: int
    """Times it could not be read since the start."""
    outbox_bytes: int
    """What this node keeps of what it sent lately, on its own disk."""
    recovered_changes: int
    """Changes that were given back to new owners since the start."""
    last_recovery_at: float | None
    reads_running: int
    retries: Mapping[str, int]
    """Reason → how often a job was sent again since the start; all reasons are there."""


class SeesCluster(Protocol):
    """Plain calls that never wait."""

    def away(self) -> str | None:
        """Why nothing of the cluster can be reached, or None while a part of it can."""

    def report(self) -> ClusterHealth:
        """As of now."""
