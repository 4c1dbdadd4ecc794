"""Traces: which requests have one, and what their spans say. How spans leave the process is `segmentd.otlp`'s.

Owns the decision (sampling, its bound), and the names and attributes of spans. Never waits, never sends anything.

Invariants:
1. No attribute has anything of a person or a secret: no identifier, path, query, body, header, document or variable.
   There are route templates, methods, statuses, counts, ids of keys and imports, ids of audiences, hashes of documents.
2. A client's `traceparent` is continued, and its sampled flag decides; without one `sampling_share` does. In both cases
   at most `requests_per_second_max` requests a second are traced, so that no client can make all others pay for spans.
3. What is not traced costs a decision; where traces are off nobody holds a `Tracing`.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, Protocol

from segmentd.logs import current_request
from segmentd.settings import TracesSettings

Value = str | bool | int | float
Attributes = Mapping[str, Value]
Kind = Literal["server", "internal"]

# W3C Trace Context, level 1: version 00 has these four fields alone; later versions may have more behind them.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class TracesUnusableError(Exception):
    """The packages that traces need are not installed."""


class Context(NamedTuple):
    """Which span: of this process or, as a parent, of the client."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """As in the header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


class Span(Protocol):
    """A span that has begun."""

    @property
    def context(self) -> Context: ...

    def link(self, other: Context) -> None:
        """Say that it belongs together with another one."""

    def end(self, attributes: Attributes, *, failed: bool = False) -> None:
        """Give it away; nothing is to be done with it afterwards."""


class Spans(Protocol):
    """What makes spans and sends them."""

    def start(self, name: str, kind: Kind, parent: Context | None, attributes: Attributes) -> Span: ...
    def counts(self) -> Mapping[str, int]: ...
    def close(self) -> None: ...


def context_of(header: str | None) -> Context | None:
    """What a `traceparent` says, None if it says nothing that can be used."""
    match = None if header is None else _TRACEPARENT.fullmatch(header)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return Context(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))


class Tracing:
    """Begins spans. Plain calls on the loop's thread."""

    def __init__(
        self,
        spans: Spans,
        settings: TracesSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """clock: seconds. chance: 0 to 1, below 1."""
        self._spans = spans
        self._share = settings.sampling_share
        self._per_second_max = settings.requests_per_second_max
        self._clock = clock
        self._chance = chance
        self._second = -math.inf
        self._begun = 0
        self.left_out = 0
        """Requests that were to be traced and were too many."""
        self.counts = spans.counts
        """Outcome → spans, since the start."""
        self.close = spans.close

    def request(self, method: str, template: str, traceparent: str | None) -> Span | None:
        """A request begins; None: it is not traced. method: one of a few. template: of its route."""
        parent = context_of(traceparent)
        if not (self._chance() < self._share if parent is None else parent.sampled) or not self._has_room():
            return None
        attributes = {"http.request.method": method, "http.route": template}
        return self._spans.start(f"{method} {template}", "server", parent, attributes)

    def part(self, name: str) -> Span | None:
        """A part of the request that this task serves begins; None where none is traced."""
        context = current_request.get()
        return None if context is None or context.span is None else self.start(name, context.span.context, {})

    def start(self, name: str, parent: Context | None, attributes: Attributes) -> Span:
        """Something of this process begins, whoever asked for it."""
        return self._spans.start(name, "internal", parent, attributes)

    def _has_room(self) -> bool:
        second = math.floor(self._clock())
        if second != self._second:
            self._second, self._begun = second, 0
        self._begun += 1
        if self._begun > self._per_second_max:
            self.left_out += 1
        return self._begun <= self._per_second_max


def open_tracing(settings: TracesSettings, process: str) -> Tracing | None:
    """None where traces are off. process: `owner`, or the follower's name. Raises TracesUnusableError."""
    if not settings.endpoint:
        return None
    try:
        from segmentd.otlp import ExportedSpans  # noqa: PLC0415  # needs an extra, and is slow to import
    except ImportError:
        raise TracesUnusableError("[traces] endpoint needs OpenTelemetry: pip install 'segmentd[traces]'") from None
    return Tracing(ExportedSpans(settings, process), settings)
