"""What `segmentd send` shows: progress while it runs, and at the end what became of every line.

Owns the texts on the terminal. Never sends, never decides whether to go on.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from segmentd.client import Post, Problem, Report, Wait

_PROBLEMS_SHOWN_MAX = 20
_NUMBERS = re.compile(r"[0-9.]+")


@dataclass
class Sent:
    """What became of one file."""

    name: str
    report: Report
    state: str = "not sent"
    reason: str = ""
    problems: Sequence[Problem] = field(default_factory=list)

    def stop(self, state: str, reason: str, problems: Sequence[Problem] = ()) -> None:
        """It goes no further, because of `reason`."""
        self.state, self.reason, self.problems = state, reason, problems

    @property
    def shown_name(self) -> str:
        """The name for people."""
        return "standard input" if self.name == "-" else self.name


class Progress:
    """A bar on stderr if that is a terminal; else a line for each outage and nothing more."""

    def __init__(self, give_up_seconds: float) -> None:
        """give_up_seconds: what is told of how long a request is tried again."""
        self._give_up_seconds = give_up_seconds
        self._show: Callable[[str], None] | None = None
        self._rate: Callable[[], str] = str
        self._told = ""

    @contextmanager
    def of(self, file: Sent, bytes_total: int | None, position: Callable[[], int]) -> Iterator[None]:
        """While one file is sent. bytes_total: None if nobody knows; position: how many bytes of them are read."""
        start, self._told = time.monotonic(), ""
        self._rate = lambda: f"{file.report.acknowledged / max(time.monotonic() - start, 1e-3):,.0f} rows/s"
        if not sys.stderr.isatty():
            yield
            return
        bar: Any
        with click.progressbar(
            iter(()) if bytes_total is None else None,
            length=bytes_total,
            label=f"send {file.shown_name}",
            file=sys.stderr,
            item_show_func=lambda shown: str(shown or ""),
        ) as bar:

            def show(text: str) -> None:
                bar.update(0 if bytes_total is None else position() - bar.pos, text)
                bar.render_progress()

            self._show = show
            try:
                yield
                show(self._rate())
            finally:
                self._show = None

    def step(self, step: Post | Wait) -> None:
        """Told of each request and each wait."""
        from segmentd.client import Wait

        if self._show is not None:
            self._show(f"{step.reason}, trying again" if isinstance(step, Wait) else self._rate())
        elif isinstance(step, Wait) and (kind := _NUMBERS.sub("", step.reason)) != self._told:
            # Once for each reason, whatever its figures: a log of a night's job is no place for every single try.
            self._told = kind
            click.echo(f"segmentd: {step.reason}; trying again for up to {self._give_up_seconds:g} seconds", err=True)


def table(sent: Sequence[Sent], rejects: Path | None) -> Iterator[str]:
    """A row for each file, then what is to be said of those that were not sent whole."""
    rows = [("FILE", "STATE", "ACKNOWLEDGED", "REJECTED", "THROUGH LINE")]
    for file in sent:
        report = file.report
        through = str(report.next_number - 1)
        rows.append((file.shown_name, file.state, str(report.acknowledged), str(report.rejected), through))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for file in sent:
        yield from _remarks(file, rejects)


def _remarks(file: Sent, rejects: Path | None) -> Iterator[str]:
    name, report = file.shown_name, file.report
    if report.rejected:
        yield f"{name}: {report.rejected} invalid and not sent, see {rejects}"
    for problem in file.problems[:_PROBLEMS_SHOWN_MAX]:
        yield f"{name}, line {problem.number}: {problem}"
    if len(file.problems) > _PROBLEMS_SHOWN_MAX:
        yield f"{name}: and {len(file.problems) - _PROBLEMS_SHOWN_MAX} more"
    if not file.reason:
        return
    yield f"{name}: {file.reason}"
    if report.unknown is not None:
        first, last = report.unknown
        yield (
            f"{name}: it is not known whether lines {first} to {last} were applied, all of them or none; "
            "sending them again is safe"
        )
    applied = report.next_number if report.unknown is None else max(report.next_number, report.unknown[1] + 1)
    yield f"{name}: nothing from line {applied} on was applied; go on with --from-line {report.next_number}"
