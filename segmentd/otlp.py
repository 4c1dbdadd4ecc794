"""Spans on their way to a collector: OpenTelemetry's SDK, and OTLP over HTTP with protobuf bodies.

HTTP and not gRPC: it is one POST for each batch that every collector takes and every proxy passes on; grpcio is a
compiled library with threads of its own. Owns the queue and the thread that empties it. Imported only where traces are
on.

Invariants:
1. Whoever ends a span appends to a queue and goes on; nothing waits for the collector but the thread.
2. The queue has a bound; spans beyond it are dropped, newest first, and counted, as are those that the collector did
   not take. (The SDK's own batch processor counts nothing, and gives no bound on a stop.)
3. A collector that is down is told of once, and once when it is back.
4. A stop waits `stop_seconds_max` at most.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Final

import structlog
from opentelemetry import context as otel_context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as OtelSpan

from segmentd import __version__
from segmentd.settings import TracesSettings
from segmentd.tracing import Attributes, Context, Kind

_KINDS: Final = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
_LIBRARY: Final = "opentelemetry"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Reasons(logging.Handler):
    """What the library last complained of, which it would write into the log for each try."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Sender(SpanProcessor):
    """The queue and its thread."""

    def __init__(self, exporter: SpanExporter, settings: TracesSettings) -> None:
        self._exporter = exporter
        self._queue: deque[ReadableSpan] = deque()
        self._spans_max = settings.queue_spans_max
        self._batch_max = settings.batch_spans_max
        self._seconds = settings.export_seconds
        self._stop_seconds_max = settings.stop_seconds_max
        self._awake = threading.Event()
        self._stopping = False
        self._works = True
        self.counts = {"exported": 0, "failed": 0, "dropped": 0}
        self._reasons = _Reasons(logging.WARNING)
        library = logging.getLogger(_LIBRARY)
        library.propagate = False
        library.addHandler(self._reasons)
        # A daemon: a collector that hangs must not keep the process.
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, or drop it."""
        if len(self._queue) >= self._spans_max or self._stopping:
            self.counts["dropped"] += 1
            return
        self._queue.append(span)
        if len(self._queue) >= self._batch_max:
            self._awake.set()

    def shutdown(self) -> None:
        """Send what is there, as long as that may take."""
        self._stopping = True
        self._awake.set()
        self._thread.join(self._stop_seconds_max)
        # Ends its pauses between two tries.
        self._exporter.shutdown()
        logging.getLogger(_LIBRARY).removeHandler(self._reasons)

    def _work(self) -> None:
        while not self._stopping:
            self._awake.wait(self._seconds)
            self._awake.clear()
            while self._queue:
                self._send([self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))])

    def _send(self, batch: list[ReadableSpan]) -> None:
        try:
            taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  # whatever the library raises, the thread goes on
            taken, self._reasons.last = False, str(error)
        self.counts["exported" if taken else "failed"] += len(batch)
        if taken and not self._works:
            log.info("traces are exported again", failed=self.counts["failed"], dropped=self.counts["dropped"])
        elif not taken and self._works:
            log.warning("traces cannot be exported; trying on with the next ones", reason=self._reasons.last)
        self._works = taken


class ExportedSpan:
    """Implements `segmentd.tracing.Span`."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def context(self) -> Context:
        """See Span."""
        context = self._span.get_span_context()
        return Context(context.trace_id, context.span_id)

    def link(self, other: Context) -> None:
        """See Span."""
        self._span.add_link(_otel_context(other, is_remote=False))

    def end(self, attributes: Attributes, *, failed: bool = False) -> None:
        """See Span."""
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class ExportedSpans:
    """Implements `segmentd.tracing.Spans`. Credentials for the collector come from `OTEL_EXPORTER_OTLP_HEADERS`."""

    def __init__(self, settings: TracesSettings, process: str) -> None:
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.export_seconds_max)
        self._sender = Sender(exporter, settings)
        resource = Resource.create(
            {SERVICE_NAME: settings.service_name, SERVICE_VERSION: __version__, "segmentd.process": process}
        )
        # The decision was taken before a span is begun.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer("segmentd", __version__)

    def start(self, name: str, kind: Kind, parent: Context | None, attributes: Attributes) -> ExportedSpan:
        """See Spans."""
        context = otel_context.Context()
        if parent is not None:
            remote = _otel_context(parent, is_remote=kind == "server")
            context = set_span_in_context(NonRecordingSpan(remote), context)
        return ExportedSpan(self._tracer.start_span(name, context, _KINDS[kind], attributes))

    def counts(self) -> Mapping[str, int]:
        """Outcome → spans: exported; failed (the collector did not take them); dropped (the queue was full)."""
        return self._sender.counts

    def close(self) -> None:
        """Blocking, for `stop_seconds_max` at most."""
        self._provider.shutdown()


def _otel_context(context: Context, *, is_remote: bool) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, is_remote, TraceFlags(TraceFlags.SAMPLED))
