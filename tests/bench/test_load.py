"""The load generator's scripts run under the real wrk against small servers that answer right or wrong."""

import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import world
from bench.answers import Question, write_work_file
from bench.processes import BenchError, Endpoint
from bench.wrk import Load, Outcome, parse_outcome

pytestmark = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("taskset") is None, reason="needs wrk and taskset"
)

Answering = Callable[[str], tuple[int, str]]
ACCEPTED = '{"title":"Accepted","status":202,"timestamp":"2026-11-23T15:22:40.450Z"}'
QUESTIONS = [Question(json.dumps({"query": name}), {"data": name}) for name in ("one", "two")]


def right(body: str) -> tuple[int, str]:
    return 200, json.dumps({"data": json.loads(body)["query"]})


@contextmanager
def serving(answer: Answering) -> Iterator[Endpoint]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, text = answer(self.rfile.read(int(self.headers["content-length"])).decode())
            body = text.encode()
            head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Endpoint(f"http://127.0.0.1:{server.server_address[1]}", "public", "private")
        finally:
            server.shutdown()
            thread.join()


def load(endpoint: Endpoint, script: str, arguments: list[object], connections: int, seconds: int = 1) -> Load:
    cpus = sorted(os.sched_getaffinity(0))
    return Load(endpoint, "/x", script, arguments, connections=connections, seconds=seconds, cpus=cpus)


def queries(tmp_path: Path, answer: Answering, connections: int) -> Outcome:
    """Learn from a server that answers right, then load one that answers with `answer`."""
    work = tmp_path / "queries.work"
    with serving(right) as endpoint:
        write_work_file(work, endpoint, QUESTIONS)
    with serving(answer) as endpoint:
        return load(endpoint, "queries.lua", [work, connections, 1], connections).finish()


def events(answer: Answering, *arguments: object, seconds: int = 1) -> Outcome:
    with serving(answer) as endpoint:
        return load(endpoint, "events.lua", list(arguments), 2, seconds).finish()


@pytest.mark.parametrize("connections", [1, 4])
def test_right_answers_are_counted(tmp_path: Path, connections: int) -> None:
    outcome = queries(tmp_path, right, connections)
    assert outcome.accepted > 0
    assert (outcome.wrong, outcome.refused) == (0, 0)
    assert 0 < outcome.p50_us <= outcome.p99_us <= outcome.max_us


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda _: (200, '{"data": "three"}'), id="another body"),
        pytest.param(lambda body: (200, right(body)[1][:-1]), id="a byte too few"),
        pytest.param(lambda body: (500, right(body)[1]), id="another status"),
        pytest.param(lambda _: right(QUESTIONS[0].body), id="always the same answer"),
    ],
)
def test_a_wrong_answer_makes_the_run_fail(tmp_path: Path, answer: Answering, connections: int) -> None:
    with pytest.raises(BenchError, match="wrong answers, such as"):
        queries(tmp_path, answer, connections)


def test_at_one_connection_an_answer_to_another_request_is_wrong(tmp_path: Path) -> None:
    def exchanged(body: str) -> tuple[int, str]:
        return right(QUESTIONS[body == QUESTIONS[0].body].body)

    with pytest.raises(BenchError, match="body of another request"):
        queries(tmp_path, exchanged, 1)


def test_a_refusal_is_counted_apart_and_is_no_answer(tmp_path: Path) -> None:
    outcome = queries(tmp_path, lambda _: (503, "{}"), 1)
    assert outcome.accepted == 0
    assert outcome.refused > 0


def test_learning_refuses_an_answer_that_is_not_the_expected_json(tmp_path: Path) -> None:
    with (
        serving(lambda _: (200, '{"data": null}')) as endpoint,
        pytest.raises(BenchError, match="expected"),
    ):
        write_work_file(tmp_path / "work", endpoint, QUESTIONS)


def test_loading_sends_every_membership_of_the_world_and_stops_by_itself() -> None:
    seen: dict[tuple[str, int], int] = {}

    def note(body: str) -> tuple[int, str]:
        for event in json.loads(body):
            audience = world.AUDIENCE_IDS.index(event["data"]["audience_id"])
            v = round(event["data"]["ts"] * 1000) * 2 + (event["action"] == "disqualify")
            seen[event["identifiers"][world.IDENTIFIER_NAME], audience] = v
        return 202, ACCEPTED

    outcome = events(note, "members", 7, 0, 100, world.MEMBERS_TS_MS, 0, seconds=600)
    assert outcome.wrong == 0
    assert seen == {
        (world.member(number), audience): v for number in range(20) for audience, v in world.memberships_of(number)
    }


def test_distinct_events_are_the_ones_that_the_check_after_the_run_expects() -> None:
    seen: dict[str, list[str]] = {}

    def note(body: str) -> tuple[int, str]:
        for event in json.loads(body):
            audience = world.AUDIENCE_IDS.index(event["data"]["audience_id"])
            shown = [world.SEGMENT_IDS[audience]] if event["action"] == "qualify" else []
            seen[event["identifiers"][world.IDENTIFIER_NAME]] = shown
        return 202, ACCEPTED

    assert events(note, "distinct", 10, 500, 0, world.LIVE_TS_MS, 0).accepted > 0
    for number in range(500, 540):
        assert seen[world.live(number)] == world.live_segments_of(number, range(world.AUDIENCES))


def test_repeated_events_are_newer_each_time_and_turn_round() -> None:
    states: dict[str, list[tuple[float, str]]] = {}

    def note(body: str) -> tuple[int, str]:
        for event in json.loads(body):
            value = event["identifiers"][world.IDENTIFIER_NAME]
            states.setdefault(value, []).append((event["data"]["ts"], event["action"]))
        return 202, ACCEPTED

    events(note, "repeated", 500, 0, 0, world.LIVE_TS_MS, 0)
    assert len(states) == 1000
    one = sorted(set(states[world.live(0)]))
    assert len(one) >= 2
    assert [action for _, action in one] == [("qualify", "disqualify")[turn % 2] for turn in range(len(one))]


@pytest.mark.parametrize(
    "answer", [(200, ACCEPTED), (202, "{}"), (202, ACCEPTED + " "), (400, '{"title":"Bad Request"}')]
)
def test_an_event_answer_of_another_form_makes_the_run_fail(answer: tuple[int, str]) -> None:
    with pytest.raises(BenchError, match="wrong answers"):
        events(lambda _: answer, "distinct", 1, 0, 0, world.LIVE_TS_MS, 0)


def test_a_paced_load_sends_no_more_than_its_pace() -> None:
    outcome = events(lambda _: (202, ACCEPTED), "distinct", 1, 0, 0, world.LIVE_TS_MS, 20)
    assert 0 < outcome.accepted <= 20 * outcome.seconds + 2


def test_output_without_an_outcome_is_an_error_that_shows_it() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        parse_outcome("unable to connect to host", "queries")
