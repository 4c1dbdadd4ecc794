"""Events to requests and answers to a report. Without I/O: a generator over `Post` and `Wait`, see `exchange`.

Owns batching, splitting, and what is rejected. Invariants:
1. Requests go out in the order of the events, the next one when the one before is settled.
2. The report is true at every yield, so whoever stops driving can tell exactly what became of every event.
3. A line is rejected (told to `reject`) only when everything else of its request is acknowledged: going on from
   `next_number` rejects no line twice.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from segmentd.client.answers import Answer, detail_of, message_of
from segmentd.client.exchange import Chance, Clock, Post, Result, Step, exchange
from segmentd.client.report import InvalidEvents, Line, Options, Problem, Refused, Report

Reject = Callable[[Line, Sequence[Problem]], None]
"""Told of each invalid event and of all that is wrong with it."""

_PATH: Final = "/v3/events"
_DECODE: Final = msgspec.json.Decoder(float_hook=float)
_COUNT_LIMIT: Final = "events_per_request_max"


class _Part(NamedTuple):
    """Lines for one request. through: what is settled with them; rejected: what was left out of them."""

    lines: Sequence[Line]
    through: int
    rejected: tuple[tuple[Line, list[Problem]], ...] = ()


class Delivery:
    """Sends one sequence of lines; used once."""

    def __init__(self, options: Options, clock: Clock, chance: Chance, report: Report, reject: Reject | None) -> None:
        """reject: takes invalid events, the others go on; None: the first invalid event raises InvalidEvents."""
        self._options = options
        self._clock = clock
        self._chance = chance
        self._report = report
        self._reject = reject
        self._events_max = options.events_per_request_max
        self._bytes_max = options.body_bytes_max

    def run(self, lines: Iterable[Line]) -> Generator[Step, Result, None]:
        """Deliver everything. Raises InvalidEvents, Refused, GaveUp."""
        for batch in self._batches(lines):
            parts = [_Part(batch, batch[-1].number)]
            while parts:
                # In order: what comes last here was put down first and goes out last.
                parts.extend(reversed((yield from self._deliver(parts.pop()))))

    def _batches(self, lines: Iterable[Line]) -> Iterator[list[Line]]:
        batch: list[Line] = []
        bytes_of_batch = 0
        for line in lines:
            bytes_of_line = len(line.text) + 1
            if batch and bytes_of_batch + bytes_of_line > self._bytes_max:
                yield batch
                batch, bytes_of_batch = [], 0
            batch.append(line)
            bytes_of_batch += bytes_of_line
            if len(batch) >= self._events_max:
                yield batch
                batch, bytes_of_batch = [], 0
        if batch:
            yield batch

    def _deliver(self, part: _Part) -> Generator[Step, Result, list[_Part]]:
        """Send one request. Returns what is to be sent instead, if it was not taken."""
        flawed = [Problem(line.number, "", "", line.flaw) for line in part.lines if line.flaw]
        if flawed:
            return self._without(part, flawed)
        if part.lines:
            answer = yield from self._exchange(part.lines)
            if answer.status in {400, 413}:
                return self._smaller(part, answer)
            if not 200 <= answer.status < 300:
                raise Refused(answer.status, message_of(answer))
        self._settle(part)
        return []

    def _exchange(self, lines: Sequence[Line]) -> Generator[Step, Result, Answer]:
        span = lines[0].number, lines[-1].number
        return exchange(self._post(lines), span, self._options, self._clock, self._chance, self._report)

    def _settle(self, part: _Part) -> None:
        if self._reject is not None:
            for line, problems in part.rejected:
                self._reject(line, problems)
        self._report.rejected += len(part.rejected)
        self._report.acknowledged += len(part.lines)
        self._report.next_number = part.through + 1
        # Last: until then an interruption leaves a report that says too little rather than too much.
        self._report.unknown = None

    def _post(self, lines: Sequence[Line]) -> Post:
        headers = {"content-type": "application/x-ndjson"}
        body = b"\n".join(line.text for line in lines)
        if self._options.gzip:
            headers["content-encoding"] = "gzip"
            # Without the time of day inside, so that the same events are the same bytes.
            body = gzip.compress(body, compresslevel=6, mtime=0)
        return Post(_PATH, body, headers)

    def _smaller(self, part: _Part, answer: Answer) -> list[_Part]:
        """What to send instead of a request that was refused with 400 or 413."""
        problems = _named(part.lines, answer) if answer.status == 400 else []
        if problems:
            return self._without(part, problems)
        message = message_of(answer)
        if len(part.lines) == 1:
            return self._without(part, [Problem(part.lines[0].number, "", "", message)])
        middle = len(part.lines) // 2
        if answer.status == 413:
            self._bytes_max = max(1, sum(len(line.text) + 1 for line in part.lines) // 2)
        elif _COUNT_LIMIT in message:
            self._events_max = middle
        first, second = part.lines[:middle], part.lines[middle:]
        return [_Part(first, first[-1].number), _Part(second, part.through, part.rejected)]

    def _without(self, part: _Part, problems: list[Problem]) -> list[_Part]:
        """The part without its invalid lines. Raises InvalidEvents if they are not to be left out."""
        if self._reject is None:
            raise InvalidEvents(problems)
        of_line: dict[int, list[Problem]] = {}
        for problem in problems:
            of_line.setdefault(problem.number, []).append(problem)
        rejected = [(line, of_line[line.number]) for line in part.lines if line.number in of_line]
        left = [line for line in part.lines if line.number not in of_line]
        return [_Part(left, part.through, (*part.rejected, *rejected))]


def _named(lines: Sequence[Line], answer: Answer) -> list[Problem]:
    """What is wrong with which line: from the server's list, or, of a body that is no JSON, looked for here."""
    listed = detail_of(answer).get("invalids")
    if isinstance(listed, list):
        return [problem for entry in listed if (problem := _problem(lines, entry)) is not None]
    return [Problem(line.number, "", "", flaw) for line in lines if (flaw := _flaw(line.text))]


def _problem(lines: Sequence[Line], entry: Any) -> Problem | None:
    at = entry.get("event") if isinstance(entry, dict) else None
    if not isinstance(at, int) or not 0 <= at < len(lines):
        return None
    field, reason, message = (str(entry.get(name) or "") for name in ("field", "reason", "message"))
    return Problem(lines[at].number, field, reason, message)


def _flaw(text: bytes) -> str:
    try:
        text.decode()
        _DECODE.decode(text)
    except UnicodeDecodeError as error:
        return f"It is no UTF-8 (byte {error.start})."
    except RecursionError:
        return "It is nested too deeply."
    except msgspec.DecodeError as error:
        return f"It is no valid JSON: {str(error).removeprefix('JSON is malformed: ')}."
    return ""
