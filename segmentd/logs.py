"""The log: structlog on stderr, JSON or for people, one form for our lines and for those of libraries.

Owns the set-up and the context that ties a line to the request it belongs to. Never decides what is logged.

Invariants:
1. Nothing of the log goes to stdout; stdout has the start line and what commands print.
2. A line written while a request is served carries its `request_id`, and its `traceparent` if it had one.
3. A traceback never shows the values of variables: they may be secrets or people's identifiers.
4. What clients said cannot begin a line or move a terminal's cursor: JSON escapes it, and so does the form for people.
5. A log that cannot be written costs lines and never fails or holds up what they are about (`segmentd/logstream.py`).
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from io import StringIO
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from segmentd.logstream import LogStream

LIBRARY_LEVEL = logging.WARNING  # Libraries tell of their normal work at `info`; that is ours to tell.

_target = LogStream(None)


class RequestContext(msgspec.Struct, frozen=True):
    """What log lines say about the request they belong to."""

    request_id: str
    traceparent: str | None
    span: Any = None
    """A `segmentd.tracing.Span`, where the request is traced."""


current_request: ContextVar[RequestContext | None] = ContextVar("segmentd_request", default=None)
"""The request that this task serves; set for the time of its handling. One set per request, read only by lines."""


def configure(form: Literal["json", "human"], level: str, stream: TextIO | None = None) -> None:
    """Send the log to `stream` (stderr if None). level: debug, info, warning or error."""
    global _target  # noqa: PLW0603  # one process has one log, as structlog and logging have it too
    _target = LogStream(sys.stderr if stream is None else stream)
    target = cast("TextIO", _target)
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request,
        _Losses(_target),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last = _last(form, colors=target.isatty())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _configure_libraries(target, max(number, LIBRARY_LEVEL), shared, last)


def lines_lost() -> int:
    """How many lines could not be written since the log was configured."""
    return _target.lines_lost


def say_on_stdout(line: str) -> None:
    """Print a line that somebody waits for; the log has it too, so that nobody being there is no reason to end."""
    said = LogStream(sys.stdout)
    said.write(line + "\n")
    if said.lines_lost:
        structlog.get_logger(__name__).warning("stdout cannot be written", line=line)


class _Losses:
    """Says with a line how many before it could not be written."""

    def __init__(self, target: LogStream) -> None:
        self._target = target

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if lost := self._target.take_lost():
            event["lines_lost"] = lost
        return event


def _last(form: Literal["json", "human"], *, colors: bool) -> list[Processor]:
    """What turns an event into a line. Both of structlog's own choices for tracebacks would show local variables."""
    if form == "json":
        tracebacks = ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    return [_escaped, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback)]


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = _visible(value)
    return event


def _traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """structlog's plain one, whose lines may quote what a client said."""
    written = StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    stream.write("\n".join(_visible(line) for line in written.getvalue().split("\n")))


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _configure_libraries(target: TextIO, level: int, shared: list[Processor], last: list[Processor]) -> None:
    """What libraries write through the standard `logging` looks like ours."""
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


def _add_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    context = current_request.get()
    if context is not None:
        event.setdefault("request_id", context.request_id)
        if context.traceparent is not None:
            event.setdefault("traceparent", context.traceparent)
    return event
