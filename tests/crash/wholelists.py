"""Lists, events and a reader of one audience while its server is killed, and who must be its members in the end.

Knows nothing of segmentd's own code, so that a mistake there cannot hide here as well.

The rule: of all decisions about an identifier the largest counts. An event decides `2 ts`, or `2 ts + 1` for out; a
list as of T decides `2 T` for whoever is in it and `2 T - 1`, which is out, for everybody else.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.serverprocess import ServerProcess

AUDIENCE = SEGMENT = "vip"
ENDED = {"completed", "failed", "cancelled"}
WAIT_SECONDS_MAX = 120.0
PAUSE_SECONDS = 0.004
"""Between two requests of one client: the server and its children shall have the most of the machine."""
EVENTS_MAX = 20
NEWCOMER_TS = 900_000_000
"""Later than every list: a newcomer stays a member for good."""
ASKED = 20


@dataclass
class Decisions:
    """What everybody decided, in any order. Times are in whole seconds."""

    lists: dict[int, frozenset[str]] = field(default_factory=dict)
    """T → who is in; no two lists have the same T."""
    events: dict[str, int] = field(default_factory=dict)
    """identifier → the largest decision of its events."""

    def event(self, person: str, ts: int, qualify: bool) -> None:
        self.events[person] = max(2 * ts + (not qualify), self.events.get(person, 0))

    def members(self) -> set[str]:
        everybody = set(self.events).union(*self.lists.values())
        return {person for person in everybody if not self._of(person) & 1}

    def _of(self, person: str) -> int:
        listed = (2 * as_of if person in people else 2 * as_of - 1 for as_of, people in self.lists.items())
        return max(self.events.get(person, 1), *listed)


class EventClient:
    """Decides about everybody all the time; what a broken connection left open is sent again in the next life."""

    def __init__(self, name: str, seed: str, people: list[str], stayers: set[str]) -> None:
        self.name = name
        self.newcomers: list[str] = []
        """Those of acknowledged requests, oldest first."""
        self._random = Random(seed)
        self._people = people
        self._stayers = stayers
        self._open: list[tuple[str, int, bool]] = []

    def run(self, server: ServerProcess, decisions: Decisions, now: int, stop: threading.Event) -> None:
        """Until the connection breaks or `stop`. now: events are from around this time."""
        with server.client(server.public_key) as client:
            while not stop.is_set():
                self._open = self._open or self._request(now)
                try:
                    answer = client.post("/v3/events", json=[_wire(*event) for event in self._open])
                except httpx.TransportError as error:
                    raise_if_timeout(error)
                    return
                assert answer.status_code in {202, 503}, answer.text
                if answer.status_code == 202:
                    self._acknowledged(decisions)
                time.sleep(PAUSE_SECONDS)

    def _request(self, now: int) -> list[tuple[str, int, bool]]:
        random = self._random
        people = random.sample(self._people, random.randint(1, EVENTS_MAX))
        decided = [
            (person, now + random.choice((-700, -1, 0, 0, 1)), person in self._stayers or random.random() < 0.5)
            for person in people
        ]
        return [*decided, (f"{self.name}-new-{len(self.newcomers)}", NEWCOMER_TS, True)]

    def _acknowledged(self, decisions: Decisions) -> None:
        for event in self._open:
            decisions.event(*event)
        self.newcomers.append(self._open[-1][0])
        self._open = []


class Reader:
    """Looks at the size and at some of those who stay, for as long as the server lives."""

    def __init__(self, seed: str, stayers: list[str], size_min: int) -> None:
        self.looks = 0
        self._random = Random(seed)
        self._stayers = stayers
        self._size_min = size_min

    def run(self, server: ServerProcess, stop: threading.Event) -> None:
        with server.client(server.public_key) as client:
            while not stop.is_set():
                asked = self._random.sample(self._stayers, min(ASKED, len(self._stayers)))
                try:
                    found = look(client, asked)
                except httpx.TransportError as error:
                    raise_if_timeout(error)
                    return
                if found is not None:
                    size, members = found
                    assert size >= self._size_min, f"seen with {size} members of at least {self._size_min}"
                    assert members == set(asked), f"not seen as members: {sorted(set(asked) - members)}"
                    self.looks += 1
                time.sleep(PAUSE_SECONDS)


class Thread(threading.Thread):
    """A thread whose failure is that of whoever joins it."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  # raised again by `end`
            self._failure = error

    def end(self) -> None:
        """Wait for it. Raises what it raised."""
        self.join()
        if self._failure is not None:
            raise self._failure


def look(client: httpx.Client, people: list[str]) -> tuple[int, set[str]] | None:
    """(size of the audience, those of `people` who are members), at one moment; None while the server stops."""
    fields = " ".join(
        f'p{at}: customer(fs_user_id: "{who}") {{ audiences(subset: ["{SEGMENT}"]) {{ edges {{ cursor }} }} }}'
        for at, who in enumerate(people)
    )
    answer = client.post("/v3/graphql", json={"query": f'{{ audience(name: "{SEGMENT}") {{ size }} {fields} }}'})
    if answer.status_code == 503:
        return None
    data = answer.json()["data"]
    return data["audience"]["size"], {who for at, who in enumerate(people) if data[f"p{at}"]["audiences"]["edges"]}


def show(client: httpx.Client) -> None:
    """Create the segment through which the audience is seen."""
    definition = {"definition": {"external": {"external_audience_id": AUDIENCE}}}
    assert client.put(f"/v3/segments/{SEGMENT}", json=definition).status_code == 201


class TooManyWaitError(Exception):
    """The list was refused, because as many wait as may."""


def upload(client: httpx.Client, people: Iterable[str], as_of: int) -> str:
    """Send a list; the id of its job. Raises httpx.TransportError, TooManyWaitError."""
    rows = "".join(f"{person}\n" for person in people)
    answer = client.post(
        f"/v3/audiences/{AUDIENCE}/imports?force=true&as_of={as_of}",
        content=f"fs_user_id\n{rows}".encode(),
        headers={"content-type": "text/csv"},
    )
    if answer.status_code == 503 and "jobs_waiting_max" in answer.text:
        raise TooManyWaitError
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def jobs(client: httpx.Client) -> list[dict[str, Any]]:
    """All jobs, newest first, over all pages."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        parameters = {"audience_id": AUDIENCE} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v3/imports", params=parameters).json()
        found += page["imports"]
        cursor = page["cursor"]
    return found


def all_ended(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """Wait until every import has ended, for as long as one of them goes on; all of them, by id."""
    before: list[tuple[str, float]] = []
    found, deadline = jobs(client), 0.0
    while any(job["state"] not in ENDED for job in found):
        if (now := [(job["state"], job["progress"]) for job in found]) != before:
            before, deadline = now, time.monotonic() + WAIT_SECONDS_MAX
        assert time.monotonic() < deadline, f"imports do not go on: {found}"
        time.sleep(0.02)
        found = jobs(client)
    return {job["id"]: job for job in found}


def exported(client: httpx.Client) -> list[str]:
    """Every member, from one snapshot."""
    answer = client.get(f"/v3/segments/{SEGMENT}/members", headers={"accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    return [json.loads(line)["identifiers"]["fs_user_id"] for line in answer.text.splitlines()]


def phases_on_disk(data: Path) -> set[str]:
    """Where a killed server has left its imports; `staging` for an upload that was not answered."""
    found = set()
    for folder in (data / "imports").iterdir():
        try:
            job = json.loads((folder / "job.json").read_bytes())
        except FileNotFoundError:
            found.add("staging")
        else:
            if job["state"] not in ENDED:
                found.add("queued" if job["state"] == "queued" else job["phase"])
    return found


def raise_if_timeout(error: httpx.TransportError) -> None:
    """A killed server breaks connections; one that lets a client wait is a defect."""
    if isinstance(error, httpx.TimeoutException):
        raise error


def _wire(person: str, ts: int, qualify: bool) -> dict[str, Any]:
    return {
        "type": "passthrough",
        "action": "qualify" if qualify else "disqualify",
        "identifiers": {"fs_user_id": person},
        "data": {"audience_id": AUDIENCE, "ts": ts},
    }
