"""What the tests of members, audiences and forgetting tell a real server, and how they wait."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

SECONDS_MAX = 60.0
TS = 1_748_851_070

Member = tuple[str, str, float]
"""(identifier name, value, ts)"""


def segment(client: httpx.Client, segment_id: str, audience: str) -> None:
    """Create a segment."""
    definition = {"definition": {"external": {"external_audience_id": audience}}}
    assert client.put(f"/v3/segments/{segment_id}", json=definition).status_code == 201


def event(audience: str, member: Member, action: str = "qualify") -> dict[str, Any]:
    name, value, ts = member
    return {
        "type": "passthrough",
        "action": action,
        "identifiers": {name: value},
        "data": {"audience_id": audience, "ts": ts},
    }


def send(client: httpx.Client, events: Iterable[dict[str, Any]]) -> None:
    """Send events, 500 a request."""
    listed = list(events)
    for start in range(0, len(listed), 500):
        answer = client.post("/v3/events", json=listed[start : start + 500])
        assert answer.status_code == 202, answer.text


def pages(client: httpx.Client, segment_id: str, first: int) -> list[list[dict[str, Any]]]:
    """All pages of the members."""
    found: list[list[dict[str, Any]]] = []
    after: str | None = None
    while True:
        query = {"first": str(first)} | ({} if after is None else {"after": after})
        answer = client.get(f"/v3/segments/{segment_id}/members", params=query)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["members"])
        after = answer.json()["next"]
        if after is None:
            return found


def members(client: httpx.Client, segment_id: str) -> set[Member]:
    return {
        (member["identifier"], member["value"], member["qualified_at"])
        for page in pages(client, segment_id, 1_000)
        for member in page
    }


def wait_until(found: Callable[[], Any]) -> Any:
    """Wait until `found` finds something."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (outcome := found()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return outcome
