"""The settings of what operators look at: metrics, traces, the log. See `segmentd.settings.model`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from segmentd.settings.section import Seconds, Section


class MetricsSettings(Section, frozen=True, kw_only=True):
    """[metrics]: what `/metrics` shows."""

    audiences_max: Annotated[int, Meta(ge=0, le=10_000)] = 0


class TracesSettings(Section, frozen=True, kw_only=True):
    """[traces]: OpenTelemetry traces, to a collector."""

    endpoint: Annotated[str, Meta(pattern=r"^(https?://\S+)?$", max_length=300)] = ""
    service_name: Annotated[str, Meta(min_length=1, max_length=255)] = "segmentd"
    sampling_share: Annotated[float, Meta(ge=0, le=1)] = 0.01
    requests_per_second_max: Annotated[int, Meta(ge=1, le=100_000)] = 100
    queue_spans_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_048
    batch_spans_max: Annotated[int, Meta(ge=1, le=100_000)] = 512
    export_seconds: Seconds = 5
    export_seconds_max: Seconds = 10
    stop_seconds_max: Seconds = 2


class LogSettings(Section, frozen=True, kw_only=True):
    """[log]: how the log on stderr looks, and how much of it there is."""

    format: Literal["json", "human"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
    slow_query_ms_min: Annotated[float, Meta(ge=0, le=3_600_000)] = 250
    slow_query_lines_per_second_max: Annotated[int, Meta(ge=1, le=10_000)] = 10
