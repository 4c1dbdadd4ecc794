"""The settings: every name, its unit, its default and its range.

Owns the Structs that the rest of the program reads. Never reads a file or the environment (`source.py` does), and
never compares two settings with each other (`checks.py` does).

Invariants:
1. A default stands here once; `config/default.toml` repeats it with its reason, and a test holds the two together.
2. Every number has a lower and an upper bound. Sizes are in bytes, times in seconds, and the name says so.
3. Settings are immutable once they are loaded.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from msgspec import Meta, field

from segmentd.settings.observing import LogSettings, MetricsSettings, TracesSettings
from segmentd.settings.section import (
    GIB,
    KIB,
    MIB,
    TIB,
    BodyBytes,
    MapBytes,
    PerSecond,
    Seconds,
    Section,
    host_and_port,
)
from segmentd.settings.store import StoreSettings


class ServerSettings(Section, frozen=True, kw_only=True):
    """[server]: where it listens, and how long a client may take."""

    listen: Annotated[str, Meta(min_length=1, max_length=300)] = "127.0.0.1:8080"
    shutdown_seconds_max: Seconds = 30
    keep_alive_seconds_max: Seconds = 75
    request_read_seconds_max: Seconds = 30
    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    lane: bool = True
    busy_poll_microseconds_max: Annotated[int, Meta(ge=0, le=1_000)] = 50
    followers: Annotated[int, Meta(ge=0, le=64)] = 0
    http2_streams_max: Annotated[int, Meta(ge=1, le=10_000)] = 100
    tls_certificate_file: Annotated[str, Meta(max_length=4_096)] = ""
    tls_key_file: Annotated[str, Meta(max_length=4_096)] = ""

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS, and nothing else."""
        return bool(self.tls_certificate_file)

    @property
    def address(self) -> tuple[str, int]:
        """`listen` as (host, port), an IPv6 host without its brackets. Raises ValueError where it is neither."""
        return host_and_port(self.listen)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `listen`. Raises ValueError as `address` does."""
        host, _ = self.address
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            # Any other name may resolve to anything.
            return False


class PassthroughSettings(Section, frozen=True, kw_only=True):
    """[passthrough]: whether events may change memberships and segments may point at external audiences."""

    enabled: bool = False


class IdentifierSettings(Section, frozen=True, kw_only=True):
    """[identifiers.<name>]: what one identifier name means."""

    confidence: Literal["high", "low"]
    lower_case: bool = False


def default_identifiers() -> dict[str, IdentifierSettings]:
    """The identifiers of a configuration without an [identifiers] table; giving the table replaces them all."""
    return {
        "fs_user_id": IdentifierSettings(confidence="high"),
        "email": IdentifierSettings(confidence="high", lower_case=True),
        "customer_id": IdentifierSettings(confidence="high"),
        "a_high_confidence_identifier": IdentifierSettings(confidence="high"),
        "vuid": IdentifierSettings(confidence="low"),
    }


class EventsSettings(Section, frozen=True, kw_only=True):
    """[events]: what an event may say about time."""

    future_seconds_max: Annotated[int, Meta(ge=0, le=31_536_000)] = 3_600


class LimitsSettings(Section, frozen=True, kw_only=True):
    """[limits]: how large what clients send may be, and how much of it there may be."""

    events_per_request_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    bodies_bytes_max: BodyBytes = 256 * MIB
    answers_bytes_max: BodyBytes = 256 * MIB
    events_body_bytes_max: BodyBytes = MIB
    events_inflated_bytes_max: BodyBytes = 4 * MIB
    segments_body_bytes_max: BodyBytes = 64 * KIB
    graphql_body_bytes_max: BodyBytes = 256 * KIB
    imports_body_bytes_max: Annotated[int, Meta(ge=KIB, le=16 * TIB)] = TIB
    # An LMDB key has at most 511 bytes; audience number and identifier kind stand in front of the value.
    identifier_bytes_max: Annotated[int, Meta(ge=1, le=480)] = 256
    audience_id_chars_max: Annotated[int, Meta(ge=1, le=256)] = 128
    audiences_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    segments_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    segment_id_chars_max: Annotated[int, Meta(ge=1, le=128)] = 128
    description_chars_max: Annotated[int, Meta(ge=0, le=65_536)] = 4_096
    metadata_entries_max: Annotated[int, Meta(ge=0, le=1_024)] = 64
    metadata_key_chars_max: Annotated[int, Meta(ge=1, le=1_024)] = 128
    metadata_value_chars_max: Annotated[int, Meta(ge=0, le=65_536)] = 1_024
    invalids_listed_max: Annotated[int, Meta(ge=1, le=10_000)] = 100


class GraphQLSettings(Section, frozen=True, kw_only=True):
    """[graphql]: how much one query may ask for."""

    document_bytes_max: Annotated[int, Meta(ge=KIB, le=GIB)] = 64 * KIB
    tokens_max: Annotated[int, Meta(ge=100, le=1_000_000)] = 1_500
    # The introspection query of the common tools is 13 levels deep.
    depth_max: Annotated[int, Meta(ge=1, le=100)] = 16
    aliases_max: Annotated[int, Meta(ge=0, le=10_000)] = 64
    cost_max: Annotated[int, Meta(ge=1, le=100_000_000)] = 50_000
    document_cache_entries_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_024
    document_cache_nodes_max: Annotated[int, Meta(ge=0, le=100_000_000)] = 8_192
    plans: bool = True


class RuntimeSettings(Section, frozen=True, kw_only=True):
    """[runtime]: the actors, and how much may wait for them."""

    shards: Annotated[int, Meta(ge=1, le=256)] = 8
    shard_inbox_messages_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    commit_queue_requests_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_096
    commit_queue_changes_max: Annotated[int, Meta(ge=1, le=100_000_000)] = 200_000
    group_changes_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    slice_changes_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    retry_after_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 1


class StorageSettings(Section, frozen=True, kw_only=True):
    """[storage]: where the data is, how large it may become, when it is folded."""

    path: Annotated[str, Meta(min_length=1, max_length=4_096)] = "data"
    journal_map_bytes: MapBytes = 8 * GIB
    index_map_bytes: MapBytes = 256 * GIB
    journal_bytes_max: Annotated[int, Meta(ge=64 * KIB, le=16 * TIB)] = 2 * GIB
    paced_journal_bytes: Annotated[int, Meta(ge=4 * KIB, le=16 * TIB)] = 256 * MIB
    checkpoint_journal_bytes: Annotated[int, Meta(ge=4 * KIB, le=16 * TIB)] = 32 * MIB
    checkpoint_seconds_max: Seconds = 10
    checkpoint_batch_changes_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 400_000


class ImportsSettings(Section, frozen=True, kw_only=True):
    """[imports]: whole lists, from uploads, from a watched folder, from a bucket."""

    line_bytes_max: Annotated[int, Meta(ge=KIB, le=16 * MIB)] = 64 * KIB
    rows_max: Annotated[int, Meta(ge=1, le=100_000_000_000)] = 1_000_000_000
    rejects_listed_max: Annotated[int, Meta(ge=0, le=10_000)] = 100
    rejected_share_max: Annotated[float, Meta(ge=0, le=1)] = 0.01
    shrink_share_max: Annotated[float, Meta(ge=0, le=1)] = 0.5
    slice_changes: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    uploads_running_max: Annotated[int, Meta(ge=1, le=64)] = 4
    stager_tries_max: Annotated[int, Meta(ge=1, le=100)] = 3
    jobs_waiting_max: Annotated[int, Meta(ge=1, le=100_000)] = 100
    jobs_kept_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    watch_folder: Annotated[str, Meta(max_length=4_096)] = ""
    watch_seconds: Seconds = 2
    s3_bucket: Annotated[str, Meta(max_length=255)] = ""
    s3_endpoint: Annotated[str, Meta(pattern=r"^(https?://\S+)?$", max_length=300)] = ""
    s3_prefix: Annotated[str, Meta(max_length=512)] = "incoming/"
    s3_done_prefix: Annotated[str, Meta(max_length=512)] = "done/"
    s3_failed_prefix: Annotated[str, Meta(max_length=512)] = "failed/"
    s3_poll_seconds: Seconds = 30


class MembersSettings(Section, frozen=True, kw_only=True):
    """[members]: pages of members, and exports of all of them."""

    page_members_max: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    settle_seconds_max: Seconds = 30
    exports_running_max: Annotated[int, Meta(ge=1, le=64)] = 4


class ComplianceSettings(Section, frozen=True, kw_only=True):
    """[compliance]: forgetting identifiers."""

    body_bytes_max: BodyBytes = 256 * KIB
    identifiers_per_request_max: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    scrub_seconds_min: Seconds = 60
    jobs_kept_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class RatesSettings(Section, frozen=True, kw_only=True):
    """[rates]: how much one key may ask for in a second, and how often a client may guess a key. 0: no limit."""

    requests_per_second: PerSecond = 0
    events_per_second: PerSecond = 0
    burst_seconds: Seconds = 10
    wrong_keys_per_minute: Annotated[int, Meta(ge=0, le=1_000_000)] = 600
    wrong_key_addresses_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    proxies_in_front: Annotated[int, Meta(ge=0, le=10)] = 0


class ConsoleSettings(Section, frozen=True, kw_only=True):
    """[console]: the pages for people, and the history that their charts show."""

    enabled: bool = True
    traffic_seconds: Seconds = 2
    traffic_points_max: Annotated[int, Meta(ge=2, le=10_000)] = 300
    size_seconds: Seconds = 300
    size_points_max: Annotated[int, Meta(ge=2, le=10_000)] = 288


class CorsSettings(Section, frozen=True, kw_only=True):
    """[cors]: which web pages may call the public paths from a browser."""

    origins: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$", max_length=300)], ...],
        Meta(max_length=1_000),
    ] = ("*",)
    max_age_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 600


class KeySettings(Section, frozen=True, kw_only=True):
    """[keys.<id>]: one API key, its secret as a hash only: sha256(salt bytes + secret in UTF-8)."""

    right: Literal["public", "private"]
    salt: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){8,64}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    requests_per_second: PerSecond | None = None
    """As in [rates], which holds where there is none."""
    events_per_second: PerSecond | None = None


class Settings(Section, frozen=True, kw_only=True):
    """All settings, one attribute a section."""

    server: ServerSettings = ServerSettings()
    passthrough: PassthroughSettings = PassthroughSettings()
    identifiers: dict[str, IdentifierSettings] = field(default_factory=default_identifiers)
    events: EventsSettings = EventsSettings()
    limits: LimitsSettings = LimitsSettings()
    graphql: GraphQLSettings = GraphQLSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    storage: StorageSettings = StorageSettings()
    store: StoreSettings = StoreSettings()
    imports: ImportsSettings = ImportsSettings()
    members: MembersSettings = MembersSettings()
    compliance: ComplianceSettings = ComplianceSettings()
    rates: RatesSettings = RatesSettings()
    console: ConsoleSettings = ConsoleSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
    cors: CorsSettings = CorsSettings()
    keys: dict[str, KeySettings] = field(default_factory=dict)
    log: LogSettings = LogSettings()
