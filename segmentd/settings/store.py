"""[store]: which store runs, and how the one in a cluster is reached."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from segmentd.settings.section import GIB, MapBytes, Seconds, Section, host_and_port

Address = Annotated[str, Meta(min_length=1, max_length=300)]
FilePath = Annotated[str, Meta(max_length=4_096)]
Secret = Annotated[str, Meta(max_length=4_096)]


class StoreSettings(Section, frozen=True, kw_only=True):
    """[store]: the embedded store of this machine, or a Valkey or Redis Cluster."""

    kind: Literal["embedded", "cluster"] = "embedded"
    addresses: Annotated[tuple[Address, ...], Meta(max_length=1_000)] = ()
    user: Secret = ""
    password: Secret = ""
    tls: bool = False
    tls_ca_file: FilePath = ""
    tls_certificate_file: FilePath = ""
    tls_key_file: FilePath = ""
    replicas_acknowledged_min: Annotated[int, Meta(ge=0, le=16)] = 1
    accept_weaker_promises: bool = False
    partitions: Annotated[int, Meta(ge=1, le=4_096)] = 48
    connect_seconds_max: Seconds = 1
    answer_seconds_max: Seconds = 1
    acknowledge_seconds_max: Seconds = 10
    layout_seconds: Seconds = 0.5
    registry_seconds: Seconds = 0.25
    figures_seconds: Seconds = 10
    outbox_seconds: Seconds = 30
    outbox_map_bytes: MapBytes = 4 * GIB
    reads_running_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000

    @property
    def is_cluster(self) -> bool:
        """Whether memberships are in a cluster."""
        return self.kind == "cluster"

    @property
    def hosts_and_ports(self) -> list[tuple[str, int]]:
        """`addresses`, taken apart. Raises ValueError for one that is none."""
        return [host_and_port(address) for address in self.addresses]
