"""A connection that gets lost between two processes is counted, by whoever misses it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from prometheus_client import CollectorRegistry

from segmentd.followers.channel import Channel, pair
from segmentd.followers.follower import Follower
from segmentd.followers.messages import Handed
from segmentd.followers.serving import FollowerServer
from segmentd.followers.supervision import Followers
from segmentd.followers.tally import FIRST_SLOT, Tally
from segmentd.http.server import open_listener
from segmentd.processmetrics import ProcessMetrics
from segmentd.settings import Settings
from tests.http.world import World


@contextmanager
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = pair()
    with ours, theirs:
        yield ours, theirs


async def test_the_owner_counts_what_did_not_arrive_from_a_follower() -> None:
    owner = Tally.create(1)
    metrics = ProcessMetrics(registry := CollectorRegistry())
    with ends() as (near, far), open_listener("127.0.0.1", 0, 1) as listener:
        followers = Followers(Settings(), listener, 0, owner, metrics)
        child = await trio.lowlevel.open_process(["true"])
        follower = Follower("follower-0", FIRST_SLOT, child, Channel(near), owner, followers)
        its = Tally(owner.descriptor, FIRST_SLOT)
        await Channel(far).send(Handed(b"", 1))
        its.sent(FIRST_SLOT)
        assert owner.total() == 1
        follower._hear(*await Channel(near).receive())
        assert owner.total() == 0
        assert registry.get_sample_value("segmentd_hand_overs_failed_total") == 1
        await child.wait()


async def test_a_follower_counts_what_did_not_arrive_from_the_owner() -> None:
    owner, failures = Tally.create(1), []
    its = Tally(owner.descriptor, FIRST_SLOT)
    world = World()
    with ends() as (near, _), open_listener("127.0.0.1", 0, 1) as listener:
        server = FollowerServer(
            world.app.edge, world.settings.server, listener, Channel(near), its, FIRST_SLOT, lambda: failures.append(1)
        )
        owner.sent(FIRST_SLOT)
        server.lost()
        assert owner.total() == 0
        assert failures == [1]
