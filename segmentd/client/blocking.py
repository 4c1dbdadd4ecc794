"""The plain client: one thread, one connection.

Owns the connection and the sleep; what to send, and when again, is the core's (`delivery`, `exchange`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Self, TypeVar

import httpx

from segmentd.client.delivery import Delivery, Reject
from segmentd.client.exchange import Post, Result, Step, Wait, exchange
from segmentd.client.report import Line, Options, Report
from segmentd.client.wire import Event, answered, connection_options, lines_of, lost, segments_in, segments_query

Returned = TypeVar("Returned")


class Client:
    """Sends events to a segmentd server and asks it for segments. For one thread; use it as a context.

    with Client("http://127.0.0.1:8080", "dev-public") as client:
        client.send(events)
    """

    def __init__(
        self,
        url: str,
        key: str,
        options: Options | None = None,
        *,
        on_step: Callable[[Step], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """url: `http://HOST:PORT`, with a path in front of the API if a proxy has one. key: public is enough.

        on_step: told of every request before it is sent, and of every wait with its reason, for progress and logs.
        transport: httpx's, for a way to the server of your own, such as a certificate authority.
        Opens no connection yet. Raises ValueError: no such url or key.
        """
        self._options = options or Options()
        self._http = httpx.Client(**connection_options(url, key, self._options), transport=transport)
        self._on_step = on_step or (lambda _: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, events: Iterable[Event], *, report: Report | None = None, reject: Reject | None = None) -> Report:
        """Send events in order, in as few requests as the limits allow; returns when all are on disk and visible.

        events: any number, read as they are sent; each with `data.ts`, since one without it is given the time at which
        it is received, which is another one when it is sent again. Numbers (in the report and in errors) are
        positions from 0. report: `Report(0)` to look into while this runs or after an error.
        reject: takes each invalid event with what is wrong with it, and the others go on. Without it the first request
        with an invalid event ends the sending.
        Raises InvalidEvents, Refused, GaveUp; what was acknowledged before stays so, and is in the report.
        """
        return self.send_lines(lines_of(events), report=report or Report(0), reject=reject)

    def send_lines(self, lines: Iterable[Line], *, report: Report, reject: Reject | None = None) -> Report:
        """As `send`, for events that are JSON already; `report.next_number` is the first line's number."""
        self._drive(Delivery(self._options, time.monotonic, random.random, report, reject).run(lines))
        return report

    def segments_of(self, *, subset: Sequence[str] | None = None, **identifier: str) -> list[str]:
        """The names of the segments in which a customer is now: `client.segments_of(fs_user_id="u-17")`.

        subset: only these are asked for, and answered in this order.
        Raises ValueError: not exactly one identifier; Refused; GaveUp.
        """
        post = segments_query(identifier, subset)
        tries = exchange(post, None, self._options, time.monotonic, random.random, Report(0))
        return segments_in(self._drive(tries))

    def _drive(self, steps: Generator[Step, Result, Returned]) -> Returned:
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                returned: Returned = end.value
                return returned
            self._on_step(step)
            result = self._do(step)

    def _do(self, step: Step) -> Result:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        return self._post(step)

    def _post(self, post: Post) -> Result:
        try:
            return answered(self._http.post(post.path, content=post.body, headers=dict(post.headers)))
        except httpx.RequestError as error:
            return lost(error)
