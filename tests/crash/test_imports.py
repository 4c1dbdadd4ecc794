"""Imports whose server is killed again and again, beside each other and beside events, end in what the rule says.

`CRASH_SEED` repeats a run's lists and moments; `CRASH_LIVES` sets how many random deaths the long test has.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal

import httpx
import pytest

from tests.crash.wholelists import (
    ENDED,
    WAIT_SECONDS_MAX,
    Decisions,
    EventClient,
    Reader,
    Thread,
    all_ended,
    exported,
    jobs,
    look,
    phases_on_disk,
    raise_if_timeout,
    show,
    upload,
)
from tests.serverprocess import ServerDiedError, ServerProcess, log_shown

SEED = int(os.environ.get("CRASH_SEED", Random().randrange(2**32)))
LIVES_LONG = int(os.environ.get("CRASH_LIVES", "40"))
SIGKILLED = -9
NEWCOMERS_ASKED = 25

SECTIONS: dict[str, dict[str, Any]] = {
    "imports": {"slice_changes": 400},
    "storage": {
        "checkpoint_journal_bytes": 131_072,
        "checkpoint_seconds_max": 0.2,
        "checkpoint_batch_changes_max": 2_000,
    },
}
POINTS = {"import_staging": 1, "import_qualifying": 6, "import_raising": 1, "import_sweeping": 3}
"""Each is passed at least so many times by every list that drops enough members."""
PHASES = {"staging", "qualifying", "raising", "sweeping"}

Lists = Literal["overlapping", "disjoint"]


class Lives:
    """One data folder, one audience, the lists that were sent to it, and who watches."""

    def __init__(self, folder: Path, seed: str, *, people: int, event_clients: int = 0, lists: Lists = "overlapping"):
        self.random = Random(seed)
        self.server = ServerProcess(folder, SECTIONS)
        self.decisions = Decisions()
        self.phases: set[str] = set()
        """In which imports were found after a death."""
        self._people = [f"u-{number:06d}" for number in range(people)]
        self._stayers = self._people[: people // 4] if lists == "overlapping" else []
        self._lists = lists
        self._as_of = 0
        self._open: dict[int, frozenset[str]] = {}
        """Uploads that were not answered."""
        self._taken: set[str] = set()
        size_min = len(self._stayers) or people // 2
        self.reader = Reader(f"{seed} reader", self._stayers, size_min)
        self._clients = [
            EventClient(f"c{number}", f"{seed} {number}", self._people, set(self._stayers))
            for number in range(event_clients)
        ]
        self._fill()

    def die_at(self, point: str, uploads: int) -> None:
        """Start, look, send lists, and die at `point`."""
        hits = self.random.randint(1, POINTS[point])
        try:
            self.server.start({"SEGMENTD_FAILPOINT": f"{point}:{hits}"})
            with self._living():
                self._upload(uploads)
                returncode = self.server.wait()
        except ServerDiedError as death:
            # An import that goes on may come to the point before the server is ready.
            returncode = death.returncode
        assert returncode == SIGKILLED, f"expected to die at {point}:{hits}"
        self._after_death()

    def die_at_progress(self, uploads: int) -> None:
        """Start, look, send lists, and be killed when the one that runs says that it has come so far."""
        wanted = self.random.random()
        self.server.start()
        with self._living():
            self._upload(uploads)
            with self.server.client(self.server.private_key) as client:
                deadline = time.monotonic() + WAIT_SECONDS_MAX
                while (job := min(jobs(client), key=_running_first))["state"] not in ENDED:
                    assert time.monotonic() < deadline, f"it never came to {wanted}: {job}"
                    if job["progress"] >= wanted:
                        break
            self.server.kill()
        print(f"killed at {job['phase']}, {job['progress']} (wanted {wanted:.3f})")
        self._after_death()

    def live_to_the_end(self) -> None:
        """Start, let every import end, and be what the rule says."""
        self.server.start()
        with self._living() as stop:
            with self.server.client(self.server.private_key) as client:
                ended = all_ended(client)
            stop.set()
        assert {job["state"] for job in ended.values()} == {"completed"}, ended
        assert self._taken <= ended.keys(), "an acknowledged import is gone"
        expected = self.decisions.members()
        with self.server.client(self.server.private_key) as client:
            found = exported(client)
            assert len(found) == len(set(found))
            wrong = sorted(set(found) ^ expected)
            assert not wrong, f"{len(wrong)} of {len(expected)} are wrong: {wrong[:10]}"
            assert look(client, []) == (len(expected), set())
        assert self.reader.looks > 0
        self.server.terminate()
        self._check()

    def _fill(self) -> None:
        with self.server, self.server.client(self.server.private_key) as client:
            show(client)
            self._as_of = 1_000
            self.decisions.lists[self._as_of] = frozenset(self._people)
            self._taken.add(upload(client, self._people, self._as_of))
            all_ended(client)
            self.server.terminate()

    @contextmanager
    def _living(self) -> Iterator[threading.Event]:
        """Clients and reader while the body runs; it must end the server or set the event."""
        stop = threading.Event()
        try:
            with self.server.client(self.server.private_key) as client:
                self._settle(client)
        except httpx.TransportError as error:
            # It has died already; the body waits for that.
            raise_if_timeout(error)
        threads = [Thread(lambda: self.reader.run(self.server, stop))]
        for client_ in self._clients:
            act = client_.run
            threads.append(Thread(lambda act=act: act(self.server, self.decisions, self._as_of, stop)))  # type: ignore[misc]
        for thread in threads:
            thread.start()
        try:
            yield stop
        finally:
            stop.set()
            for thread in threads:
                thread.end()

    def _settle(self, client: httpx.Client) -> None:
        """What was promised is there; and of lists that were not answered it shows which were taken."""
        found = {job["as_of"]: job["id"] for job in jobs(client)}
        assert self._taken <= set(found.values()), "an acknowledged import is gone"
        for as_of in sorted(self._open.keys() & found.keys()):
            self.decisions.lists[as_of] = self._open[as_of]
            self._taken.add(found[as_of])
        self._open.clear()
        for event_client in self._clients:
            newcomers = event_client.newcomers[-NEWCOMERS_ASKED:]
            seen = look(client, newcomers)
            assert seen is not None
            assert seen[1] == set(newcomers), "an acknowledged event is lost"

    def _upload(self, count: int) -> None:
        """Send lists at the same time; the server may die meanwhile."""
        for people in self._new_lists(count):
            self._as_of += 1_000
            self._open[self._as_of] = people
        threads = [Thread(lambda as_of=as_of: self._send(as_of)) for as_of in self._open]  # type: ignore[misc]
        self.random.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.end()

    def _send(self, as_of: int) -> None:
        people = self._open[as_of]
        try:
            with self.server.client(self.server.private_key) as client:
                job_id = upload(client, sorted(people), as_of)
        except httpx.TransportError as error:
            raise_if_timeout(error)
            return
        self.decisions.lists[as_of] = people
        self._taken.add(job_id)
        del self._open[as_of]

    def _new_lists(self, count: int) -> list[frozenset[str]]:
        shuffled = self.random.sample(self._people, len(self._people))
        if self._lists == "disjoint":
            half = len(shuffled) // 2
            return [frozenset(shuffled[:half]), frozenset(shuffled[half:])]
        share = len(shuffled) * 2 // 3
        return [frozenset([*self._stayers, *self.random.sample(shuffled, share)]) for _ in range(count)]

    def _after_death(self) -> None:
        here = phases_on_disk(self.server.data)
        print(f"died with imports in {sorted(here)}")
        self.phases |= here
        self._check()

    def _check(self) -> None:
        checked = self.server.check()
        assert checked.returncode == 0, f"segmentd check:\n{checked.stdout}{checked.stderr}"


@contextmanager
def lives(folder: Path, name: str, **options: Any) -> Iterator[Lives]:
    print(f"CRASH_SEED={SEED}")
    lives = Lives(folder, f"{SEED} {name}", **options)
    with log_shown(lives.server):
        yield lives
        lives.server.close()


def _running_first(job: dict[str, Any]) -> tuple[bool, str]:
    return job["state"] in ENDED, job["id"]


@pytest.mark.parametrize("kind", ["overlapping", "disjoint"])
def test_two_lists_at_once_end_as_the_rule_says_wherever_they_are_killed(tmp_path: Path, kind: Lists) -> None:
    with lives(tmp_path, kind, people=6_000, lists=kind) as two:
        for point in two.random.sample(sorted(POINTS), len(POINTS)):
            two.die_at(point, uploads=2)
        two.die_at_progress(uploads=2)
        two.live_to_the_end()
        assert two.phases >= PHASES


def test_a_list_beside_events_about_the_same_identifiers_loses_neither(tmp_path: Path) -> None:
    with lives(tmp_path, "events", people=20_000, event_clients=2) as beside:
        for point in beside.random.sample(sorted(POINTS), len(POINTS)):
            beside.die_at(point, uploads=1)
        for _ in range(2):
            beside.die_at_progress(uploads=1)
        beside.live_to_the_end()
        assert beside.phases >= PHASES


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["overlapping", "disjoint"])
def test_lists_beside_events_survive_many_random_deaths(tmp_path: Path, kind: Lists) -> None:
    with lives(tmp_path, f"long {kind}", people=60_000, event_clients=2, lists=kind) as long:
        for life in range(LIVES_LONG):
            if life % 2:
                long.die_at_progress(uploads=2)
            else:
                long.die_at(long.random.choice(sorted(POINTS)), uploads=2)
        long.live_to_the_end()


@pytest.mark.parametrize("point", [None, "import_qualifying", "import_sweeping"])
def test_the_same_file_twice_with_a_death_between_is_the_file_once(tmp_path: Path, point: str | None) -> None:
    before, listed = [f"u-{number:05d}" for number in range(2_000)], [f"u-{number:05d}" for number in range(800, 3_000)]
    server = ServerProcess(tmp_path, SECTIONS)
    with log_shown(server), server:
        with server.client(server.private_key) as client:
            show(client)
            upload(client, before, 1_000)
            all_ended(client)
        server.terminate()
        server.start({"SEGMENTD_FAILPOINT": f"{point}:2"} if point else {})
        with server.client(server.private_key) as client:
            first = upload(client, listed, 2_000)
        server.wait() if point else server.kill()
        server.start()
        with server.client(server.private_key) as client:
            second = upload(client, listed, 2_000)
            ended = all_ended(client)
            assert [ended[job_id]["state"] for job_id in (first, second)] == ["completed", "completed"]
            assert ended[first]["disqualified"] == 800
            counts = [ended[second][name] for name in ("qualified", "unchanged", "disqualified")]
            assert counts == [0, len(listed), 0]
            assert sorted(exported(client)) == listed
        server.terminate()
        assert server.check().returncode == 0
