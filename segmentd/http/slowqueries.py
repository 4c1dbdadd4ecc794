"""The log of slow queries: one line for each GraphQL request that took long, and never whom it asked about.

Owns the bound of how many lines there are, and what is in one: how long, what answered (`plan`, `executor`, `refused`),
the operation's name, and a hash of the document that is the same for all requests of its shape, pasted literals or not.
Literals, variables, identifiers and keys are in no line. Looked at only when a request was slow, so it may parse again.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from segmentd.graphql.engine import GraphQLRequest
from segmentd.graphql.literals import outline_of
from segmentd.http.exchange import Answer, Request
from segmentd.settings import LogSettings

NAME_CHARS_MAX: Final = 64
_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]*", re.ASCII)
_NAMED: Final = re.compile(r"\s*query\s+([_A-Za-z][_0-9A-Za-z]*)", re.ASCII)
_HASH_CHARS: Final = 16

_log = structlog.get_logger(__name__)


class Described(NamedTuple):
    """What a line says of a query. document: hash of its outline; None where none could be read."""

    answered_by: str
    operation: str | None = None
    document: str | None = None
    document_bytes: int = 0


def described(request: GraphQLRequest, *, planned: bool | None) -> Described:
    """planned: whether a plan answers it; None where it is refused."""
    outline = outline_of(request.query)
    shape = request.query if outline is None else outline.key
    name = request.operation_name or next(iter(_NAMED.findall(request.query[:1_000])), "")
    return Described(
        answered_by="refused" if planned is None else "plan" if planned else "executor",
        operation=name[:NAME_CHARS_MAX] if _NAME.fullmatch(name) else None,
        document=hashlib.sha256(shape.encode(errors="surrogatepass")).hexdigest()[:_HASH_CHARS],
        document_bytes=len(request.query.encode(errors="surrogatepass")),
    )


class SlowQueries:
    """Writes the lines."""

    def __init__(
        self,
        settings: LogSettings,
        describe: Callable[[Request], Described],
        count: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """describe: called for slow ones alone. count: one more was slow. clock: seconds."""
        self.seconds_min = settings.slow_query_ms_min / 1000 or math.inf
        self._lines_max = settings.slow_query_lines_per_second_max
        self._describe = describe
        self._count = count
        self._clock = clock
        self._second = -math.inf
        self._lines = 0
        self._left_out = 0

    def tell(self, request: Request, answer: Answer, seconds: float) -> None:
        """One request that took `seconds_min` or more."""
        self._count()
        second = math.floor(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._lines_max:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        _log.warning(
            "slow query",
            seconds=round(seconds, 6),
            status=answer.status,
            **self._describe(request)._asdict(),
            bytes_out=len(answer.body),
            key=request.key and request.key.id,
            road=request.road,
            **({"lines_left_out": left_out} if left_out else {}),
        )
