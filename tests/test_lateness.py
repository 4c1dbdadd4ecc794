"""The loop's lateness is seen and shown."""

import trio
import trio.testing

from segmentd import lateness
from segmentd.telemetry import Telemetry


async def test_a_held_loop_is_seen_as_late(mock_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    seen: list[float] = []
    nursery.start_soon(lateness.sample, seen.append)
    await trio.testing.wait_all_tasks_blocked()
    for passing in (lateness.SAMPLE_SECONDS, lateness.SAMPLE_SECONDS + 0.25):
        mock_clock.jump(passing)
        await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    assert [round(late, 6) for late in seen] == [0, 0.25]


async def test_lateness_is_a_histogram() -> None:
    telemetry = Telemetry()
    for seconds in (0.0001, 0.03, 0.2):
        telemetry.loop_late(seconds)
    read = telemetry.registry.get_sample_value
    assert read("segmentd_loop_lateness_seconds_count") == 3
    assert read("segmentd_loop_lateness_seconds_bucket", {"le": "0.01"}) == 1
    assert read("segmentd_loop_lateness_seconds_bucket", {"le": "0.05"}) == 2
