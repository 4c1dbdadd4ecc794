"""The core of the client in conversation: a server that is a function, a clock that moves when somebody waits.

Owns no socket and no time. `talk` drives one delivery to its end; what was posted and waited for can be read after it.
"""

import gzip
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from segmentd.client.answers import Answer, Lost
from segmentd.client.delivery import Delivery
from segmentd.client.exchange import Post, Result, Step, Wait
from segmentd.client.report import Line, Options, Problem, Report

ACCEPTED = Answer(202, b'{"status":202}')

Server = Callable[[Post], Answer | Lost]


@dataclass
class Talk:
    """One delivery and all that was said."""

    server: Server
    options: Options = field(default_factory=Options)
    leave_out: bool = False
    report: Report = field(default_factory=lambda: Report(0))
    posts: list[Post] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    rejected: list[tuple[int, list[Problem]]] = field(default_factory=list)
    now: float = 0.0
    seconds_a_post: float = 0.0

    def send(self, lines: Sequence[Line]) -> Report:
        """Deliver; raises what the delivery raises."""
        delivery = Delivery(self.options, lambda: self.now, lambda: 0.0, self.report, self._reject())
        self._drive(delivery.run(lines))
        return self.report

    def _reject(self) -> Callable[[Line, Sequence[Problem]], None] | None:
        if not self.leave_out:
            return None
        return lambda line, problems: self.rejected.append((line.number, list(problems)))

    def _drive(self, steps: Generator[Step, Result, None]) -> None:
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if isinstance(step, Wait):
                self.waits.append(step)
                self.now += step.seconds
                result = None
            else:
                self.posts.append(step)
                self.now += self.seconds_a_post
                result = self.server(step)


def numbered(count: int, first: int = 0) -> list[Line]:
    """Lines whose text is their own number."""
    return [Line(number, str(number).encode()) for number in range(first, first + count)]


def texts(post: Post) -> list[bytes]:
    """The lines of a request."""
    body = gzip.decompress(post.body) if post.headers.get("content-encoding") == "gzip" else post.body
    return body.split(b"\n")


def refusal(status: int, detail: dict[str, Any], retry_after_seconds: float = 0.0) -> Answer:
    """An answer in the shape of the events API."""
    return Answer(status, json.dumps({"status": status, "detail": detail}).encode(), retry_after_seconds)


def in_turn(*answers: Answer | Lost) -> Server:
    """A server that answers so, one after the other, and then accepts everything."""
    left = list(answers)
    return lambda _: left.pop(0) if left else ACCEPTED
