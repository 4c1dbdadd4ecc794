"""The channel between owner and follower: whole messages, descriptors, and the other side's end."""

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from segmentd.followers.channel import PACKET_BYTES_MAX, Channel, ChannelEndedError, ChannelFullError, pair
from segmentd.followers.messages import Handed, Leave, Message, Ready, Reopen


@pytest.fixture
def channels() -> tuple[Channel, Channel]:
    ours, theirs = pair()
    return Channel(ours), Channel(theirs)


async def test_messages_arrive_whole_and_in_order(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    sent: list[Message] = [
        Ready(),
        Handed(b"", 0),
        Handed(b"x" * (PACKET_BYTES_MAX - 100), 1),
        Reopen("g"),
        Leave(stopping=True),
    ]
    for message in sent:
        await ours.send(message)
    assert [(await theirs.receive())[0] for _ in sent] == sent


async def test_a_message_larger_than_a_packet_arrives_whole_with_its_descriptor(
    channels: tuple[Channel, Channel], tmp_path: Path
) -> None:
    ours, theirs = channels
    begun = os.urandom(3_000_000)
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"the same file")
        file.flush()
        await ours.send(Handed(begun, 2), file.fileno())
    message, descriptor = await theirs.receive()
    assert message == Handed(begun, 2)
    assert descriptor is not None
    assert os.pread(descriptor, 100, 0) == b"the same file"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


async def test_a_connection_goes_on_in_another_process_with_what_was_not_read(
    channels: tuple[Channel, Channel],
) -> None:
    ours, theirs = channels
    client, server = socket.socketpair()
    client.send(b"read, not read")
    begun = server.recv(4)
    await ours.send(Handed(begun, 1), server.fileno())
    server.close()
    message, descriptor = await theirs.receive()
    assert isinstance(message, Handed)
    with socket.socket(fileno=descriptor) as taken, client:
        assert message.begun + taken.recv(100) == b"read, not read"
        taken.send(b"answered")
        assert client.recv(100) == b"answered"


async def test_what_was_sent_before_the_end_is_received_before_the_end(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    await theirs.send(Ready())  # never read by ours, which makes the kernel tell theirs of a reset
    await ours.send(Handed(b"last words", 1))
    ours.close()
    assert (await theirs.receive())[0] == Handed(b"last words", 1)
    with pytest.raises(ChannelEndedError):
        await theirs.receive()
    with pytest.raises(ChannelEndedError):
        await theirs.send(Ready())


async def test_a_full_channel_refuses_at_once_or_waits_for_room(channels: tuple[Channel, Channel]) -> None:
    ours, theirs = channels
    message = Handed(b"x" * 10_000, 1)
    count = 0
    while ours.send_now(message):
        count += 1
        assert count < 10_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, message)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(count + 1):
            assert (await theirs.receive())[0] == message


async def test_nobody_waits_for_ever_on_a_process_that_takes_nothing(
    channels: tuple[Channel, Channel], autojump_clock: trio.testing.MockClock
) -> None:
    ours, _theirs = channels
    while ours.send_now(Handed(b"x" * 10_000, 1)):
        pass
    with pytest.raises(ChannelFullError):
        await ours.send(Ready())


async def test_descriptors_of_messages_that_nobody_read_are_closed_with_the_channel(
    channels: tuple[Channel, Channel],
) -> None:
    ours, theirs = channels
    client, server = socket.socketpair()
    await ours.send(Handed(b"", 1), server.fileno())
    server.close()
    theirs.close()
    client.settimeout(10)
    assert client.recv(1) == b""
    client.close()
