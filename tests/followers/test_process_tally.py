"""Counting connections over several processes."""

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from segmentd.followers.tally import FIRST_SLOT, OWNER, SharedRoom, Tally

FOLLOWERS = 2
FOLLOWER_SLOTS = range(FIRST_SLOT, FIRST_SLOT + FOLLOWERS)


def views() -> dict[int, Tally]:
    owner = Tally.create(FOLLOWERS)
    return {OWNER: owner, **{slot: Tally(owner.descriptor, slot) for slot in FOLLOWER_SLOTS}}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "end", "send", "receive", "die"]),
            st.sampled_from(FOLLOWER_SLOTS),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_the_total_is_what_all_processes_have_and_what_is_between_them(steps: list[tuple[str, int, bool]]) -> None:
    tallies = views()
    connections = dict.fromkeys(tallies, 0)
    between = {(slot, to_owner): 0 for slot in FOLLOWER_SLOTS for to_owner in (True, False)}
    for step, follower, owners in steps:
        here = OWNER if owners else follower
        there = follower if owners else OWNER
        if step == "open":
            tallies[here].opened()
            connections[here] += 1
        elif step == "end" and connections[here]:
            tallies[here].ended()
            connections[here] -= 1
        elif step == "send" and connections[here]:
            tallies[here].sent(follower)
            tallies[here].ended()
            connections[here] -= 1
            between[follower, not owners] += 1
        elif step == "receive" and between[follower, owners]:
            tallies[here].opened()
            tallies[here].received(follower)
            connections[here] += 1
            between[follower, owners] -= 1
        elif step == "die" and not between[follower, True]:
            lost = tallies[OWNER].clear(follower)
            assert lost == connections[follower] + between[follower, False]
            connections[follower] = between[follower, False] = 0
        assert there in connections
        assert {tally.total() for tally in tallies.values()} == {sum(connections.values()) + sum(between.values())}
        assert tallies[OWNER].underway_to(follower) == between[follower, False]
        assert [tallies[OWNER].open_in(slot) for slot in tallies] == [connections[slot] for slot in tallies]


async def test_all_processes_together_never_accept_more_than_there_is_room_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    connections_max = 20
    tallies = views()
    rooms = {slot: SharedRoom(tally, connections_max) for slot, tally in tallies.items()}
    entered = []

    async def accept(room: SharedRoom) -> None:
        while True:
            await room.wait()
            await trio.sleep(0.001)  # accepting takes a moment, in which the others look as well
            room.entered()
            entered.append(room)
            assert tallies[OWNER].total() <= connections_max

    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            for room in rooms.values():
                nursery.start_soon(accept, room)
    assert len(entered) > connections_max - tallies[OWNER].processes_max
    for room in rooms.values():
        with trio.move_on_after(1) as scope:
            await room.wait()
        assert scope.cancelled_caught
    for room in entered:
        room.left()
    assert tallies[OWNER].total() == 0
    for room in rooms.values():
        await room.wait()
