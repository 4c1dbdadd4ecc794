"""More events than can be written: early refusals, queries and health all the time, nothing lost, quick recovery."""

import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.overload.crowds import (
    PATIENCE_SECONDS,
    assert_recovered,
    events,
    resident_bytes,
    show,
    size,
    wait_until,
    watching,
)
from tests.serverprocess import ServerProcess, log_shown

MIB = 1 << 20
EVENTS = 500
QUEUE_CHANGES = 5_000
GROUP_CHANGES = 500
COMMIT_SECONDS = 0.05
"""With one request a group: 10,000 events a second can be sustained."""
SENDERS = 32
GROWTH_BYTES_MAX = 64 * MIB
MEMBER_BYTES_MAX = 200
"""Of an identifier with one membership: what is taken stays in memory, whatever the load."""
QUEUE = {
    "runtime": {"commit_queue_changes_max": QUEUE_CHANGES, "group_changes_max": GROUP_CHANGES},
    "imports": {"slice_changes": GROUP_CHANGES},
}


class Senders:
    """Clients that send as fast as they are answered, and do not wait when they are told to."""

    def __init__(self, server: ServerProcess) -> None:
        self.taken: list[int] = []
        """Numbers of acknowledged requests."""
        self.answers: Counter[int] = Counter()
        self.stop = threading.Event()
        self._server = server
        self._next = 1
        self._lock = threading.Lock()

    def run(self, pause_seconds: float) -> None:
        with self._server.client(self._server.public_key) as client:
            while not self.stop.is_set():
                with self._lock:
                    number, self._next = self._next, self._next + 1
                answer = client.post("/v3/events", content=events(range(number * EVENTS, (number + 1) * EVENTS)))
                assert answer.status_code in {202, 503}, answer.text
                assert answer.status_code == 202 or int(answer.headers["retry-after"]) > 0
                with self._lock:
                    self.answers[answer.status_code] += 1
                    if answer.status_code == 202:
                        self.taken.append(number)
                time.sleep(pause_seconds)


def assert_nothing_lost_and_nothing_refused_is_there(server: ServerProcess, senders: Senders) -> None:
    with server.client(server.private_key) as client:
        assert size(client) == 1 + len(senders.taken) * EVENTS


@pytest.mark.parametrize("seconds", [3.0, pytest.param(120.0, marks=pytest.mark.soak)])
def test_ten_times_what_can_be_written_is_refused_early_and_holds_up_nobody(tmp_path: Path, seconds: float) -> None:
    slow = tmp_path / "slow"
    slow.write_text(str(COMMIT_SECONDS))
    server = ServerProcess(tmp_path, QUEUE)
    server.start({"SEGMENTD_FAILPOINT": f"slow_commit:{slow}"})
    with log_shown(server), ThreadPoolExecutor(SENDERS) as pool:
        show(server)
        before = resident_bytes(server.pid)
        senders = Senders(server)
        with watching(server) as seen:
            # 32 clients, each with a request of 500 every 0.16 s: 100,000 events a second.
            running = [pool.submit(senders.run, SENDERS * EVENTS / 100_000) for _ in range(SENDERS)]
            time.sleep(seconds)
            senders.stop.set()
            _all_ended(running)
        print(f"{senders.answers}, grown by {seen.resident_bytes_max - before} bytes")
        assert senders.answers[503] > senders.answers[202] > 0
        data_bytes_max = len(senders.taken) * EVENTS * MEMBER_BYTES_MAX
        assert seen.resident_bytes_max - before < GROWTH_BYTES_MAX + data_bytes_max
        assert_recovered_but_for(server, senders)
        server.close()


def test_a_disk_that_stalls_holds_up_no_query_and_loses_nothing(tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    server = ServerProcess(tmp_path, QUEUE)
    server.start({"SEGMENTD_FAILPOINT": f"slow_commit:{stall}"})
    with log_shown(server), ThreadPoolExecutor(SENDERS) as pool:
        show(server)
        senders = Senders(server)
        stall.touch()
        with watching(server) as seen:
            running = [pool.submit(senders.run, 0.05) for _ in range(SENDERS)]
            wait_until(lambda: senders.answers[503] > 5 * SENDERS, "refusals while the disk stalls")
            assert senders.answers[202] == 0
            asked = seen.answers["query"]
            wait_until(lambda: seen.answers["query"] > asked + 10, "queries while the disk stalls")
            stall.unlink()
            wait_until(lambda: senders.answers[202] > SENDERS, "events are taken when the disk goes on")
            senders.stop.set()
            _all_ended(running)
        assert_recovered_but_for(server, senders)
        server.close()


def test_a_client_that_does_not_wait_for_a_stalled_disk_gets_what_it_sent_written_all_the_same(tmp_path: Path) -> None:
    stall = tmp_path / "stall"
    server = ServerProcess(tmp_path, QUEUE)
    server.start({"SEGMENTD_FAILPOINT": f"slow_commit:{stall}"})
    with log_shown(server):
        show(server)
        stall.touch()
        with pytest.raises(httpx.ReadTimeout), server.client(server.public_key) as impatient:
            impatient.post("/v3/events", content=events(range(1, 11)), timeout=0.5)
        stall.unlink()
        with server.client(server.private_key) as client:
            wait_until(lambda: size(client) == 11, "what was queued is written")
        server.terminate()


def assert_recovered_but_for(server: ServerProcess, senders: Senders) -> None:
    """All acknowledged events are there, none of the refused ones, and the service goes on."""
    assert_nothing_lost_and_nothing_refused_is_there(server, senders)
    assert_recovered(server)
    server.terminate()
    checked = server.check()
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _all_ended(running: list[Future[None]]) -> None:
    for each in running:
        each.result(PATIENCE_SECONDS)
