"""Connections spread over the processes, whoever accepted them."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from segmentd.followers.balance import DIFFERENCE_MIN, Balance, OwnerBeside
from segmentd.followers.channel import Channel, pair
from segmentd.followers.tally import FIRST_SLOT, OWNER, Tally
from tests.followers.processes import FollowedServer, events, names, paused, query, until

CONNECTIONS = 12


def test_half_of_a_difference_is_given_away_and_small_ones_stay() -> None:
    balance = Balance()
    for mine, others, given in ((16, 0, 8), (DIFFERENCE_MIN, 0, 2), (DIFFERENCE_MIN - 1, 0, 0), (0, 16, 0)):
        balance.compare(mine, others)
        assert balance.surplus == given
    balance.compare(16, None)
    assert balance.surplus == 0


async def test_a_follower_gives_to_an_owner_that_takes_and_to_no_other(autojump_clock: trio.testing.MockClock) -> None:
    owner = Tally.create(1)
    mine = Tally(owner.descriptor, FIRST_SLOT)
    near, far = pair()
    beside = OwnerBeside(Channel(near), mine, FIRST_SLOT)
    for _ in range(16):
        mine.opened()
    with near, far:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside.watch)
            await trio.sleep(1)
            assert not beside.wants(0), "the owner has said nothing"
            owner.take_queries()
            await trio.sleep(0.06)
            assert beside.wants(0)
            assert beside.wants(2)
            assert not beside.wants(3), "it has been to and fro already"
            given = 0
            while beside.wants(0):
                assert beside.give(near.fileno(), b"", 1)
                given += 1
            assert given == 8
            assert owner.load(OWNER) == given, "they are on their way"
            nursery.cancel_scope.cancel()


@pytest.fixture
def server(tmp_path: Path) -> FollowedServer:
    return FollowedServer(tmp_path)


def test_what_one_process_accepted_is_spread_at_the_next_queries(server: FollowedServer) -> None:
    with server, ExitStack() as opened:
        with paused(server.pid):
            connections = [opened.enter_context(server.connection()) for _ in range(CONNECTIONS)]
            for connection in connections:
                assert names(connection.ask(query("nobody"))) == []

        def spread() -> bool:
            for connection in connections:
                assert names(connection.ask(query("nobody"))) == []
            seen = server.metrics()
            mine, its = (seen[f'segmentd_connections{{process="{name}"}}'] for name in ("owner", "follower-0"))
            return abs(mine - its) <= DIFFERENCE_MIN

        until(spread, server.log_text)
        # Wherever they are now, an event and what it says are seen on all of them.
        assert connections[0].ask(events(("ann", "red", True))).status == 202
        for connection in connections:
            assert names(connection.ask(query("ann"))) == []
