"""The client for Trio: one task, one connection.

Owns the connection and the sleep; what to send, and when again, is the core's (`delivery`, `exchange`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Self, TypeVar

import httpx
import trio

from segmentd.client.delivery import Delivery, Reject
from segmentd.client.exchange import Post, Result, Step, Wait, exchange
from segmentd.client.report import Line, Options, Report
from segmentd.client.wire import Event, answered, connection_options, lines_of, lost, segments_in, segments_query

Returned = TypeVar("Returned")


class TrioClient:
    """Sends events to a segmentd server and asks it for segments. For one task at a time; use it as a context.

    async with TrioClient("http://127.0.0.1:8080", "dev-public") as client:
        await client.send(events)
    """

    def __init__(
        self,
        url: str,
        key: str,
        options: Options | None = None,
        *,
        on_step: Callable[[Step], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """url: `http://HOST:PORT`, with a path in front of the API if a proxy has one. key: public is enough.

        on_step: told of every request before it is sent, and of every wait with its reason, for progress and logs.
        transport: httpx's, for a way to the server of your own, such as a certificate authority.
        Opens no connection yet. Raises ValueError: no such url or key.
        """
        self._options = options or Options()
        self._http = httpx.AsyncClient(**connection_options(url, key, self._options), transport=transport)
        self._on_step = on_step or (lambda _: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def send(
        self, events: Iterable[Event], *, report: Report | None = None, reject: Reject | None = None
    ) -> Report:
        """Send events in order, in as few requests as the limits allow; returns when all are on disk and visible.

        events: any number, read as they are sent; each with `data.ts`, since one without it is given the time at which
        it is received, which is another one when it is sent again. Numbers (in the report and in errors) are
        positions from 0. report: `Report(0)` to look into while this runs or after an error.
        reject: takes each invalid event with what is wrong with it, and the others go on. Without it the first request
        with an invalid event ends the sending.
        Raises InvalidEvents, Refused, GaveUp; what was acknowledged before stays so, and is in the report.
        """
        return await self.send_lines(lines_of(events), report=report or Report(0), reject=reject)

    async def send_lines(self, lines: Iterable[Line], *, report: Report, reject: Reject | None = None) -> Report:
        """As `send`, for events that are JSON already; `report.next_number` is the first line's number."""
        await self._drive(Delivery(self._options, trio.current_time, random.random, report, reject).run(lines))
        return report

    async def segments_of(self, *, subset: Sequence[str] | None = None, **identifier: str) -> list[str]:
        """The names of the segments in which a customer is now: `await client.segments_of(fs_user_id="u-17")`.

        subset: only these are asked for, and answered in this order.
        Raises ValueError: not exactly one identifier; Refused; GaveUp.
        """
        post = segments_query(identifier, subset)
        tries = exchange(post, None, self._options, trio.current_time, random.random, Report(0))
        return segments_in(await self._drive(tries))

    async def _drive(self, steps: Generator[Step, Result, Returned]) -> Returned:
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                returned: Returned = end.value
                return returned
            self._on_step(step)
            result = await self._do(step)

    async def _do(self, step: Step) -> Result:
        if isinstance(step, Wait):
            await trio.sleep(step.seconds)
            return None
        return await self._post(step)

    async def _post(self, post: Post) -> Result:
        try:
            return answered(await self._http.post(post.path, content=post.body, headers=dict(post.headers)))
        except httpx.RequestError as error:
            return lost(error)
