"""Which requests are traced: what a traceparent says, shares and bounds; and what is loaded where traces are off."""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from segmentd.otlp import Sender
from segmentd.settings import TracesSettings
from segmentd.tracing import Attributes, Context, Kind, TracesUnusableError, Tracing, context_of, open_tracing

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
HEADER = f"00-{TRACE:032x}-{SPAN:016x}"


@pytest.mark.parametrize(
    ("header", "context"),
    [
        (f"{HEADER}-01", Context(TRACE, SPAN, True)),
        (f"{HEADER}-00", Context(TRACE, SPAN, False)),
        (f"{HEADER}-03", Context(TRACE, SPAN, True)),  # other flags are not looked at
        (f"{HEADER}-02", Context(TRACE, SPAN, False)),
        (f"cc{HEADER[2:]}-01-what-comes-later", Context(TRACE, SPAN, True)),
        (f"{HEADER}-01-more", None),  # version 00 has no more
        (f"ff{HEADER[2:]}-01", None),
        (f"{HEADER}-1", None),
        (f"{HEADER.upper()}-01", None),
        (f"{HEADER}-01, {HEADER}-01", None),
        (f" {HEADER}-01", None),
        (f"{HEADER}-01\n", None),
        (f"00-{'0' * 32}-{SPAN:016x}-01", None),
        (f"00-{TRACE:032x}-{'0' * 16}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_read_as_the_w3c_says(header: str | None, context: Context | None) -> None:
    assert context_of(header) == context


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read_again(trace_id: int, span_id: int, sampled: bool) -> None:
    context = Context(trace_id, span_id, sampled)
    assert context_of(context.traceparent) == context


@given(st.text())
def test_any_header_is_read_or_not(header: str) -> None:
    assert context_of(header) is None or context_of(header)


class Begun:
    """Implements Span and Spans; every span is this one."""

    context = Context(TRACE, SPAN)

    def link(self, other: Context) -> None:
        """Nothing."""

    def end(self, attributes: Attributes, *, failed: bool = False) -> None:
        """Nothing."""

    def start(self, name: str, kind: Kind, parent: Context | None, attributes: Attributes) -> "Begun":  # noqa: ARG002
        return self

    def counts(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        """Nothing."""


def test_a_share_of_what_nobody_decided_is_traced_and_a_bounded_number_a_second() -> None:
    now, chances = [0.0], iter([0.2, 0.25, 0.9, 0.1])
    settings = TracesSettings(sampling_share=0.25, requests_per_second_max=2)
    tracing = Tracing(Begun(), settings, clock=lambda: now[0], chance=lambda: next(chances))
    assert [tracing.request("GET", "/", None) is not None for _ in range(4)] == [True, False, False, True]
    now[0] = 1.5
    assert [tracing.request("GET", "/", f"{HEADER}-01") is not None for _ in range(3)] == [True, True, False]
    assert tracing.request("GET", "/", f"{HEADER}-00") is None
    assert tracing.left_out == 1
    now[0] = 2.0
    assert tracing.request("GET", "/", f"{HEADER}-01") is not None


def test_there_is_no_part_of_a_request_outside_of_one() -> None:
    assert Tracing(Begun(), TracesSettings()).part("x") is None


def test_where_traces_are_off_nothing_of_it_is_loaded() -> None:
    program = (
        "import sys; from segmentd import follower, service; from segmentd.settings import TracesSettings;"
        "from segmentd.tracing import open_tracing; assert open_tracing(TracesSettings(), 'owner') is None;"
        "sys.exit(any(name.partition('.')[0] in {'opentelemetry', 'google', 'requests'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentd.otlp", None)
    with pytest.raises(TracesUnusableError, match=r"\[traces\] endpoint needs .* 'segmentd\[traces\]'"):
        open_tracing(TracesSettings(endpoint="http://127.0.0.1:4318/v1/traces"), "owner")


class Exporter(SpanExporter):
    """Takes what comes once it may."""

    def __init__(self, *, raises: bool = False) -> None:
        self.may = threading.Event()
        self.batches: list[int] = []
        self._raises = raises

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.may.wait()
        self.batches.append(len(spans))
        if self._raises:
            raise RuntimeError("no")
        return SpanExportResult.SUCCESS


def span() -> ReadableSpan:
    return ReadableSpan("x")


def test_the_queue_is_bounded_and_every_span_is_counted_once() -> None:
    exporter = Exporter()
    settings = TracesSettings(queue_spans_max=10, batch_spans_max=4, export_seconds=3_600, stop_seconds_max=60)
    sender = Sender(exporter, settings)
    for _ in range(100):
        sender.on_end(span())
    exporter.may.set()
    sender.shutdown()
    sender.on_end(span())
    counts = sender.counts
    assert sum(counts.values()) == 101
    assert counts["exported"] == sum(exporter.batches) <= 10 + 4
    assert max(exporter.batches) == 4
    assert counts["failed"] == 0


def test_an_exporter_that_raises_loses_its_batch_and_the_thread_goes_on() -> None:
    exporter = Exporter(raises=True)
    exporter.may.set()
    sender = Sender(exporter, TracesSettings(queue_spans_max=10, batch_spans_max=1, stop_seconds_max=60))
    for _ in range(3):
        sender.on_end(span())
    sender.shutdown()
    assert sender.counts == {"exported": 0, "failed": 3, "dropped": 0}
