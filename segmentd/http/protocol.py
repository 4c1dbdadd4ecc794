"""Hypercorn's connection, where it must do otherwise.

Owns what of Hypercorn is configured or overridden. Never looks at a request that could be read.

Invariants:
1. A connection whose client has left ends at once, and frees its place.
2. A request's head that has begun is whole within the time for it, or the connection ends without a word.
3. Bytes that are no HTTP/1.1 request are answered in our shape, and counted.
4. An HTTP/2 client that resets more streams than a bucket holds loses its connection.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from itertools import chain
from typing import Final

import h2.errors
import h2.events
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from segmentd.domain.refusals import Refusal
from segmentd.http.edge import Edge
from segmentd.http.errors import HeadTooLarge, MalformedRequest, UnknownCoding
from segmentd.http.ratelimits import TokenBucket
from segmentd.http.streams import BoundedStream
from segmentd.settings import ServerSettings

HEADER_BYTES_MAX: Final = 32_768  # request line and headers together; a GET with a query text needs more than 8 KiB
# Hypercorn ends a connection after this many requests; SDKs keep theirs for days.
REQUESTS_PER_CONNECTION_MAX: Final = 1_000_000


def config_of(settings: ServerSettings) -> Config:
    """Hypercorn's configuration."""
    config = Config()
    config.accesslog = None  # the edge writes the access log; Hypercorn's costs a quarter of its throughput
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_seconds_max
    config.ssl_handshake_timeout = settings.request_read_seconds_max
    config.keep_alive_max_requests = REQUESTS_PER_CONNECTION_MAX
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.h2_max_header_list_size = HEADER_BYTES_MAX
    config.h2_max_concurrent_streams = settings.http2_streams_max
    return config


class Protocol(TCPServer):
    """One connection.

    The original keeps task and socket of a departed client until the keep-alive time is over, because its idle timer
    still runs; departed clients would then take up the room of new ones.
    """

    _reads = True

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, stream: BoundedStream, edge: Edge
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]
        self._bounded = stream
        self._edge = edge

    async def _read_data(self) -> None:
        if isinstance(self.protocol.protocol, H11Protocol):
            self.protocol.protocol = _HTTP11(self, self._bounded, self._edge)
        self._calm_http2()
        await super()._read_data()
        self._reads = False
        await self.idle_task.stop()
        if isinstance(self.protocol.protocol, H2Protocol):
            # Hypercorn's HTTP/2 may wait for ever to hand an answer to a connection that is closed.
            self._bounded.end_in_time()

    def _calm_http2(self) -> None:
        """Bound what a client may reset, now (ALPN) or when the connection turns out to be HTTP/2 (h2c)."""
        wrapper = self.protocol
        handle, settings = wrapper.handle, self.config

        async def handled(event: Event) -> None:
            spoken = wrapper.protocol
            await handle(event)
            if wrapper.protocol is not spoken and isinstance(wrapper.protocol, H2Protocol):
                calm(wrapper.protocol, settings.h2_max_concurrent_streams)

        if isinstance(wrapper.protocol, H2Protocol):
            calm(wrapper.protocol, settings.h2_max_concurrent_streams)
        else:
            wrapper.handle = handled  # type: ignore[method-assign]

    async def protocol_send(self, event: Event) -> None:
        if self._reads or not isinstance(event, Updated):
            await super().protocol_send(event)


def calm(protocol: H2Protocol, streams_max: int) -> None:
    """End the connection of a client that resets streams faster than it could use them (CVE-2023-44487).

    A reset frees the stream at once, but what it began goes on: without a bound, one connection could begin any number
    of requests. So resets have a bucket, ten times as large as the streams that may be open at a time.
    """
    resets = TokenBucket(streams_max, 10.0, trio.current_time())
    handle_events = protocol._handle_events

    async def bounded(events: list[h2.events.Event]) -> None:
        count = sum(isinstance(event, h2.events.StreamReset) for event in events)
        if count and resets.take(count, trio.current_time()):
            protocol.connection.close_connection(error_code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            await protocol._flush()
            await protocol.send(Closed())
            return
        await handle_events(events)

    protocol._handle_events = bounded  # type: ignore[method-assign]


class _Connection(h11.Connection):
    """h11's connection that overlooks what a client sends behind its last request (`Connection: close`, HTTP/1.0).

    Hypercorn would answer that with 400 while the request is still handled, in place of its answer.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        return h11.NEED_DATA if self.their_state is h11.MUST_CLOSE else super().next_event()


class _HTTP11(H11Protocol):
    """HTTP/1.1 on one connection: slow heads end, and errors have a body."""

    def __init__(self, server: Protocol, stream: BoundedStream, edge: Edge) -> None:
        made = server.protocol
        super().__init__(
            made.app,
            made.config,
            made.context,
            made.task_group,
            made.state,
            made.ssl,
            made.client,
            made.server,
            made.send,
        )
        self._stream = stream
        self._edge = edge
        self.connection = _Connection(h11.SERVER, max_incomplete_event_size=made.config.h11_max_incomplete_size)

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and self._expects_nothing():
            return
        try:
            await super().handle(event)
        finally:
            self._stream.head_begun(begun=self._head_begun())

    def _expects_nothing(self) -> bool:
        return isinstance(self.connection, h11.Connection) and self.connection.their_state is h11.MUST_CLOSE

    def _head_begun(self) -> bool:
        # After an upgrade the connection is no longer h11's, and there are no heads.
        connection = self.connection
        return (
            isinstance(connection, h11.Connection)
            and connection.their_state is h11.IDLE
            and bool(connection.trailing_data[0])
        )

    async def _send_error_response(self, status_code: int) -> None:
        if self.connection.trailing_data[1]:
            return  # What is wrong is that the client left in the middle; there is nobody to be told.
        answer = self._edge.unreadable(_refusal(status_code))
        named = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        framing = [(b"content-length", str(len(answer.body)).encode()), (b"connection", b"close")]
        headers = list(chain(named, framing, self.config.response_headers("h11")))
        await self._send_h11_event(h11.Response(status_code=answer.status, headers=headers))
        await self._send_h11_event(h11.Data(data=answer.body))
        await self._send_h11_event(h11.EndOfMessage())


def _refusal(status_hint: int) -> Refusal:
    """What h11's hint about the status means."""
    if status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return HeadTooLarge(f"The request line and the headers are larger than {HEADER_BYTES_MAX} bytes.")
    if status_hint == HTTPStatus.NOT_IMPLEMENTED:
        return UnknownCoding("The only Transfer-Encoding that is read here is chunked.")
    return MalformedRequest("This is no well-formed HTTP/1.1 request.")
