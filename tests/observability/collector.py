"""A collector on loopback: OTLP over HTTP, protobuf decoded; it can refuse, and it can hang."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from tests.members.service import wait_until


class Received(NamedTuple):
    """A span as it came. Ids are hexadecimal; parent: empty for a root."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: str
    failed: bool
    links: tuple[str, ...]
    seconds: float
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


class Collector:
    """Keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Received] = []
        self.answer = threading.Event()
        """Requests wait for it."""
        self.answer.set()
        self.status = 200
        self.asked = threading.Event()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.spans.extend(_received(span, resource) for span in scope.spans)

    def named(self, name: str, count: int = 1) -> list[Received]:
        """Wait for so many spans of a name."""
        found: list[Received] = wait_until(lambda: self._enough(name, count))
        return found

    def _enough(self, name: str, count: int) -> list[Received]:
        found = [span for span in list(self.spans) if span.name == name]
        return found if len(found) >= count else []


def _received(span: ProtoSpan, resource: Mapping[str, Any]) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=ProtoSpan.SpanKind.Name(span.kind),
        failed=span.status.code == 2,
        links=tuple(link.span_id.hex() for link in span.links),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_plain(span.attributes),
        resource=resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    listed: list[KeyValue] = list(attributes)
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in listed}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens until the end of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.asked.set()
            collector.answer.wait()
            if collector.status == 200:
                assert self.path == "/v1/traces"
                assert self.headers["content-type"] == "application/x-protobuf"
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.answer.set()
            server.shutdown()
            thread.join()
