"""Whoever is refused while its body still comes can read why, and then loses the connection: not all of it is read."""

import pytest
import trio

from segmentd.http import connection, lane
from segmentd.http.streams import DRAIN_BYTES_MAX
from segmentd.settings import ServerSettings
from tests.http.conftest import start
from tests.http.test_wire import connected
from tests.http.world import World, settings_with

KERNEL_BYTES_MAX = 32 << 20
"""What the sockets' buffers may hold besides."""
PIECE = b"10000\r\n" + b"x" * 65_536 + b"\r\n"


async def told_and_taken(port: int, head: bytes) -> tuple[bytes, int]:
    """(what was answered, how much of a body without end was taken before the connection ended)."""
    async with connected(port) as stream:
        await stream.send_all(b"POST /v3/events HTTP/1.1\r\nhost: x\r\nx-api-key: test-public\r\n" + head + b"\r\n\r\n")
        told, taken = await stream.receive_some(12), 0
        while taken <= DRAIN_BYTES_MAX + KERNEL_BYTES_MAX:
            try:
                await stream.send_all(PIECE)
            except trio.BrokenResourceError:
                break
            taken += len(PIECE)
    return told, taken


@pytest.mark.parametrize(
    ("with_lane", "head", "told"),
    [
        (False, b"content-length: 1000000000000", b"HTTP/1.1 413"),
        (True, b"content-length: 1000000000000", b"HTTP/1.1 413"),
        (False, b"content-type: text/x\r\ntransfer-encoding: chunked", b"HTTP/1.1 408"),
        (True, b"content-length: 10000", b"HTTP/1.1 408"),
    ],
    ids=["hypercorn", "handed-over", "hypercorn-late", "lane-late"],
)
async def test_a_refused_body_without_end_is_cut_off(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, with_lane: bool, head: bytes, told: bytes
) -> None:
    for road in (connection, lane):
        monkeypatch.setattr(road, "DRAIN_SECONDS_MAX", 600.0)  # so that it is the bytes that end it
    server = ServerSettings(lane=with_lane, request_read_seconds_max=0.2)
    served = await start(World(settings_with(server=server)), nursery)
    answered, taken = await told_and_taken(served.port, head)
    assert answered == told
    assert taken <= DRAIN_BYTES_MAX + KERNEL_BYTES_MAX
    served.stop.set()
