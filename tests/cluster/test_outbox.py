"""What was sent is kept until the second rotation after it, through restarts, and is read without holding it all."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentd.cluster import outbox as outbox_module
from segmentd.cluster.outbox import Outbox, Sent
from segmentd.cluster.registry import Entry
from segmentd.storage.errors import StoreFullError
from segmentd.storage.journal import Journal
from tests.runtime.world import MAP_BYTES


@asynccontextmanager
async def opened(folder: Path, map_bytes: int = MAP_BYTES) -> AsyncIterator[Outbox]:
    outbox = Outbox(folder, map_bytes=map_bytes)
    try:
        yield outbox
    finally:
        outbox.close()


def folders(path: Path) -> list[Path]:
    return list(path.iterdir())


def sent(*numbers: int) -> list[Sent]:
    return [
        Sent(b"\0%d" % number, b"token-%02d" % (number % 7), number, None if number % 2 else 5) for number in numbers
    ]


async def kept(outbox: Outbox, wanted: Iterable[int] | None = None) -> list[Sent]:
    keys = None if wanted is None else {change.key for change in sent(*wanted)}
    found: list[Sent] = []

    async def take(piece: list[Sent]) -> None:
        found.extend(piece)

    await outbox.replay(lambda key: keys is None or key in keys, take)
    return found


async def test_what_is_wanted_comes_back_in_order_as_it_was_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.append(sent(3, 1))
        await outbox.append(sent(2))
        assert await kept(outbox) == sent(3, 1, 2)
        assert await kept(outbox, wanted=[1, 2, 9]) == sent(1, 2)


async def test_it_is_kept_until_the_second_rotation_and_then_its_file_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.append(sent(1))
        await outbox.rotate()
        await outbox.append(sent(2))
        assert await kept(outbox) == sent(1, 2)
        await outbox.rotate()
        assert await kept(outbox) == sent(2)
        assert len(folders(tmp_path)) == 2


async def test_restarts_lose_nothing_and_gather_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.append(sent(1))
        await outbox.rotate()
        await outbox.append(sent(2))
    for number in range(3, 8):
        async with opened(tmp_path) as outbox:
            assert await kept(outbox) == sent(*range(1, number))
            await outbox.append(sent(number))
    assert len(folders(tmp_path)) == 2
    async with opened(tmp_path) as outbox:
        await outbox.rotate()
        assert await kept(outbox) == sent(*range(2, 8))


async def test_a_damaged_record_is_left_out_and_what_stands_beside_it_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.append(sent(1), [Entry(b"a", 1, b"x")])
    (folder,) = folders(tmp_path)
    journal = Journal(folder, map_bytes=MAP_BYTES)
    for damaged in (b"", b"\xc1", b"\x07", b"\x92\x91\x05\x90", b"\x92\x90"):
        journal.append(damaged)
    journal.close()
    async with opened(tmp_path) as outbox:
        await outbox.append(sent(2), [Entry(b"b", 1, b"y")])
        assert await kept(outbox) == sent(1, 2)
        assert await outbox.entries() == [Entry(b"a", 1, b"x"), Entry(b"b", 1, b"y")]


async def test_of_an_entry_the_largest_rank_is_sent_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.append(entries=[Entry(b"a", 1, b"x"), Entry(b"a", 3, b"z"), Entry(b"b", -1, b"")])
        await outbox.rotate()
        await outbox.append(entries=[Entry(b"a", 2, b"y")])
        assert sorted(await outbox.entries()) == [Entry(b"a", 3, b"z"), Entry(b"b", -1, b"")]


async def test_a_full_outbox_refuses_until_the_next_rotation(tmp_path: Path) -> None:
    large = [Sent(b"\0" + b"x" * 60_000, b"token", number, None) for number in range(10)]
    async with opened(tmp_path, map_bytes=1 << 20) as outbox:
        await outbox.append(large)
        with pytest.raises(StoreFullError):
            await outbox.append(large)
        await outbox.rotate()
        await outbox.append(large)
        assert len(await kept(outbox)) == 20


async def test_what_is_being_read_is_not_removed_and_what_is_sent_meanwhile_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "_PIECE_CHANGES", 3)
    async with opened(tmp_path) as outbox:
        for number in range(0, 20, 2):
            await outbox.append(sent(number, number + 1))
        await outbox.rotate()
        await outbox.append(sent(20))
        pieces: list[list[Sent]] = []

        async def take(piece: list[Sent]) -> None:
            pieces.append(piece)
            if len(pieces) == 2:
                await outbox.append(sent(99))
                await outbox.rotate()
                await outbox.rotate()

        await outbox.replay(lambda _: True, take)
        assert [change for piece in pieces for change in piece] == sent(*range(21))
        assert max(map(len, pieces)) <= 4
        await outbox.rotate()
        assert await kept(outbox) == [], "it is removed as soon as nobody reads it"


async def test_reading_that_fails_or_is_given_up_holds_nothing_back(tmp_path: Path) -> None:
    async def fail(_: list[Sent]) -> None:
        raise OSError("no")

    async def hang(_: list[Sent]) -> None:
        await trio.sleep_forever()

    async with opened(tmp_path) as outbox:
        await outbox.append(sent(1))
        with pytest.raises(OSError, match="no"):
            await outbox.replay(lambda _: True, fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.replay, lambda _: True, hang)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await outbox.rotate()
        await outbox.rotate()
        assert await kept(outbox) == []


STEPS = st.lists(st.sampled_from(["send", "send", "rotate", "restart"]), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_whatever_happens_it_is_all_of_the_last_two_periods(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("outbox")

    async def live() -> None:
        periods: list[list[int]] = [[]]
        outbox = Outbox(folder, map_bytes=MAP_BYTES)
        for number, step in enumerate(steps):
            if step == "send":
                await outbox.append(sent(number))
                periods[-1].append(number)
            elif step == "rotate":
                await outbox.rotate()
                periods.append([])
            else:
                outbox.close()
                outbox = Outbox(folder, map_bytes=MAP_BYTES)
            assert await kept(outbox) == sent(*[number for period in periods[-2:] for number in period])
        outbox.close()

    trio.run(live)
