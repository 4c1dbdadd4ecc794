"""The client against the real server: limits, 429, a server that stands still, dies and comes back, a wrong key."""

import os
import signal
import threading
import time
from typing import Any

import pytest
import trio

from segmentd.client import Client, GaveUp, InvalidEvents, Options, Post, Refused, Report, TrioClient, Wait
from tests.client.conftest import Serve, event, members

WAIT_SECONDS_MAX = 60.0


def reached(report: Report, number: int) -> None:
    """Wait until so many events are acknowledged."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while report.acknowledged < number:
        assert time.monotonic() < deadline, f"not reached: {report}"
        time.sleep(0.005)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_sent_is_what_is_found(serve: Serve, compressed: bool) -> None:
    server = serve()
    events = [event(number) for number in range(1_200)] + [event(2_000, "u7", "disqualify")]
    with Client(server.url, server.public_key, Options(gzip=compressed)) as client:
        report = client.send(events)
        assert (report.acknowledged, report.requests, report.retries) == (1_201, 3, 0)
        assert members(server) == {f"u{number}" for number in range(1_200) if number != 7}
        assert client.segments_of(fs_user_id="u8") == ["vip"]
        assert client.segments_of(fs_user_id="u7") == []
        assert client.segments_of(fs_user_id="u8", subset=["other"]) == []
        with pytest.raises(Refused):
            client.segments_of(no_such_identifier="u8")


def test_the_trio_client_does_the_same(serve: Serve) -> None:
    server = serve()

    async def run() -> tuple[Report, list[str]]:
        async with TrioClient(server.url, server.public_key) as client:
            report = await client.send(event(number) for number in range(700))
            members(server)
            return report, await client.segments_of(fs_user_id="u1")

    report, segments = trio.run(run)
    assert (report.acknowledged, report.requests) == (700, 2)
    assert segments == ["vip"]


def test_smaller_limits_of_the_server_are_kept_to(serve: Serve) -> None:
    server = serve(limits={"events_per_request_max": 60, "events_body_bytes_max": 4_096})
    with Client(server.url, server.public_key, Options(give_up_seconds=30)) as client:
        report = client.send(event(number) for number in range(1_000))
    assert report.acknowledged == 1_000
    assert len(members(server)) == 1_000
    assert report.requests < 120, "the limit is found out once, not with each request"


def test_an_event_that_no_request_can_hold_is_named(serve: Serve) -> None:
    server = serve(limits={"events_body_bytes_max": 4_096})
    large: dict[str, Any] = event(2) | {"note": "x" * 8_000}
    with Client(server.url, server.public_key) as client, pytest.raises(InvalidEvents, match=r"event 2: .*4096"):
        client.send([event(0), event(1), large, event(3)])
    assert {"u2", "u3"}.isdisjoint(members(server))


def test_a_key_with_a_limit_is_waited_for(serve: Serve) -> None:
    server = serve(rates={"events_per_second": 200, "burst_seconds": 1})
    steps: list[Post | Wait] = []
    with Client(server.url, server.public_key, Options(events_per_request_max=100), on_step=steps.append) as client:
        report = client.send(event(number) for number in range(600))
    assert report.acknowledged == 600
    assert report.retries >= 1
    assert all(step.reason.endswith("(status 429)") for step in steps if isinstance(step, Wait))
    assert len(members(server)) == 600


def test_a_server_that_cannot_write_for_a_moment_is_waited_for(serve: Serve) -> None:
    # A journal that is full until it is folded: 503.
    server = serve(
        storage={"journal_map_bytes": 1 << 20, "journal_bytes_max": 65_536, "checkpoint_journal_bytes": 65_536}
    )
    steps: list[Post | Wait] = []
    with Client(server.url, server.public_key, on_step=steps.append) as client:
        report = client.send(event(number) for number in range(20_000))
    assert (report.acknowledged, report.unknown) == (20_000, None)
    reasons = {step.reason for step in steps if isinstance(step, Wait)}
    assert reasons
    assert all(reason.endswith("(status 503)") for reason in reasons)
    assert len(members(server)) == 20_000


def test_a_server_that_stands_still_is_asked_again_with_the_same_request(serve: Serve) -> None:
    server = serve()
    report, steps = Report(0), list[Post | Wait]()

    def go_on_after_the_first_wait(step: Post | Wait) -> None:
        steps.append(step)
        if isinstance(step, Wait):
            os.kill(server.pid, signal.SIGCONT)

    options = Options(answer_seconds_max=0.5, events_per_request_max=10)
    with Client(server.url, server.public_key, options, on_step=go_on_after_the_first_wait) as client:
        client.send([event(number) for number in range(10)], report=report)
        os.kill(server.pid, signal.SIGSTOP)
        assert client.send([event(number) for number in range(10, 30)]).retries >= 1
    assert any(isinstance(step, Wait) and step.reason == "no answer in time" for step in steps)
    assert members(server) == {f"u{number}" for number in range(30)}


def test_a_server_that_is_killed_and_started_again_misses_nothing(serve: Serve, unused_port: int) -> None:
    server = serve(port=unused_port)
    report, failures = Report(0), list[BaseException]()
    people = 3_000

    def send() -> None:
        options = Options(events_per_request_max=20, pause_seconds_min=0.05, pause_seconds_max=0.2)
        try:
            with Client(server.url, server.public_key, options) as client:
                events = (event(n, f"u{n % people}", "disqualify" if n % 3 else "qualify") for n in range(2 * people))
                client.send(events, report=report)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    for goal in (1_000, 2_500, 4_000):
        reached(report, goal)
        server.restart()
    sender.join(WAIT_SECONDS_MAX)
    assert not sender.is_alive()
    assert failures == []
    assert (report.acknowledged, report.next_number, report.unknown) == (2 * people, 2 * people, None)
    assert report.retries >= 3
    last = {f"u{n % people}": n % 3 == 0 for n in range(2 * people)}
    assert members(server) == {person for person, qualified in last.items() if qualified}
    server.terminate()
    assert server.check().returncode == 0


def test_a_wrong_key_is_told_at_once(serve: Serve) -> None:
    server = serve()
    with Client(server.url, "wrong") as client, pytest.raises(Refused, match=r"^Forbidden \(status 403\)$") as raised:
        client.send([event(1)])
    assert raised.value.status == 403


def test_without_a_server_it_is_given_up_and_nothing_is_in_doubt(unused_port: int) -> None:
    report = Report(0)
    options = Options(give_up_seconds=0.3, pause_seconds_min=0.05)
    with Client(f"http://127.0.0.1:{unused_port}", "k", options) as client, pytest.raises(GaveUp, match="refused"):
        client.send([event(1)], report=report)
    assert (report.acknowledged, report.unknown) == (0, None)
    assert report.retries >= 1
