"""Events to requests: within the limits, in order, split where they are too large, invalid ones named by number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.client.answers import Answer, Lost
from segmentd.client.exchange import Post
from segmentd.client.report import GaveUp, InvalidEvents, Line, Options, Problem
from tests.client.conversation import ACCEPTED, Talk, numbered, refusal, texts


class StrictServer:
    """Takes what is within its limits and valid, as segmentd does; remembers what it took, in order."""

    def __init__(self, events_max: int, bytes_max: int, invalid: set[int], listed_max: int) -> None:
        self.events_max, self.bytes_max, self.invalid, self.listed_max = events_max, bytes_max, invalid, listed_max
        self.taken: list[int] = []

    def __call__(self, post: Post) -> Answer:
        lines = texts(post)
        if sum(map(len, lines)) + len(lines) - 1 > self.bytes_max:
            return refusal(413, {"message": "Too large.", "limit_name": "events_body_bytes_max"})
        if any(line == b"{" for line in lines):
            return refusal(400, {"message": "Line 1 of the body is no valid JSON."})
        if len(lines) > self.events_max:
            return refusal(400, {"message": f"At most {self.events_max} ([limits] events_per_request_max)."})
        bad = [
            {"event": at, "field": "data.ts", "reason": "INVALID", "message": "Wrong."}
            for at, line in enumerate(lines)
            if int(line) in self.invalid
        ]
        if bad:
            return refusal(400, {"invalids": bad[: self.listed_max]})
        self.taken += map(int, lines)
        return ACCEPTED


@given(
    count=st.integers(0, 60),
    events_max=st.integers(1, 30),
    bytes_max=st.integers(2, 80),
    batch=st.integers(1, 40),
    batch_bytes=st.integers(1, 200),
    invalid=st.sets(st.integers(0, 59), max_size=20),
    malformed=st.sets(st.integers(0, 59), max_size=4),
    listed_max=st.integers(1, 5),
    compressed=st.booleans(),
)
def test_all_valid_events_arrive_once_and_in_order_and_all_others_are_named(
    count: int,
    events_max: int,
    bytes_max: int,
    batch: int,
    batch_bytes: int,
    invalid: set[int],
    malformed: set[int],
    listed_max: int,
    compressed: bool,
) -> None:
    server = StrictServer(events_max, bytes_max, invalid - malformed, listed_max)
    options = Options(events_per_request_max=batch, body_bytes_max=batch_bytes, gzip=compressed)
    talk = Talk(server, options, leave_out=True)
    lines = [Line(line.number, b"{") if line.number in malformed else line for line in numbered(count)]
    report = talk.send(lines)
    wrong = {number for number in invalid | malformed if number < count}
    assert server.taken == [number for number in range(count) if number not in wrong]
    assert sorted(number for number, _ in talk.rejected) == sorted(wrong)
    assert (report.acknowledged, report.rejected, report.next_number) == (count - len(wrong), len(wrong), count)
    assert report.unknown is None
    assert all(len(texts(post)) <= batch for post in talk.posts)


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    invalid=st.sets(st.integers(0, 59), min_size=1, max_size=5),
    malformed=st.booleans(),
)
def test_without_leaving_out_the_report_says_exactly_what_was_taken(
    count: int, batch: int, invalid: set[int], malformed: bool
) -> None:
    server = StrictServer(1_000, 1_000_000, set() if malformed else invalid, 100)
    lines = [Line(n, b"{") if malformed and n in invalid else Line(n, text) for n, text, _ in numbered(count)]
    talk = Talk(server, Options(events_per_request_max=batch))
    wrong = sorted(number for number in invalid if number < count)
    if not wrong:
        assert talk.send(lines).acknowledged == count
        return
    with pytest.raises(InvalidEvents) as raised:
        talk.send(lines)
    assert server.taken == list(range(wrong[0] // batch * batch))
    assert (talk.report.acknowledged, talk.report.next_number) == (len(server.taken), len(server.taken))
    assert talk.report.unknown is None
    named = [problem.number for problem in raised.value.problems]
    assert named == [number for number in wrong if number // batch == wrong[0] // batch]


def test_a_smaller_limit_is_found_out_once() -> None:
    server = StrictServer(events_max=30, bytes_max=1_000_000, invalid=set(), listed_max=100)
    talk = Talk(server, Options(events_per_request_max=100))
    assert talk.send(numbered(1_000)).acknowledged == 1_000
    refused = len(talk.posts) - 1_000 // 25
    assert refused == 1 + 2, "the batch of 100 and its halves of 50; from then on 25"


def test_what_the_server_says_of_an_event_is_handed_on() -> None:
    server = StrictServer(100, 10_000, {3}, 100)
    with pytest.raises(InvalidEvents, match=r"^event 3: data\.ts: Wrong\.$") as raised:
        Talk(server).send(numbered(5))
    assert raised.value.problems == [Problem(3, "data.ts", "INVALID", "Wrong.")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "no valid JSON"),
        (b"\xff", "no UTF-8"),
        (b'"' + b"\xc3\x28" + b'"', "no UTF-8"),
        (b"1 2", "no valid JSON"),
    ],
)
def test_a_line_that_is_no_json_is_found_although_the_server_only_says_that_there_is_one(
    text: bytes, reason: str
) -> None:
    talk = Talk(lambda _: refusal(400, {"message": "Line 9 of the body is no valid JSON."}))
    with pytest.raises(InvalidEvents, match=rf"^event 1: It is {reason}"):
        talk.send([Line(0, b"{}"), Line(1, text), Line(2, b"1e400")])
    assert len(talk.posts) == 1


def test_a_single_event_that_is_too_large_is_rejected_with_the_servers_reason() -> None:
    talk = Talk(StrictServer(100, 10, set(), 100), leave_out=True)
    talk.send([*numbered(2), Line(2, b"1" * 50), *numbered(2, 3)])
    assert talk.rejected == [(2, [Problem(2, "", "", "Too large.")])]
    assert talk.report.acknowledged == 4


def test_a_refused_request_that_names_no_event_that_was_sent_is_split_like_any_other() -> None:
    odd = refusal(400, {"invalids": [{"event": 99}, {"event": "x"}, 7]})
    talk = Talk(lambda post: odd if b"1" in texts(post) else ACCEPTED, leave_out=True)
    talk.send(numbered(4))
    assert [number for number, _ in talk.rejected] == [1]
    assert talk.report.acknowledged == 3


def test_a_line_with_a_flaw_is_never_sent() -> None:
    talk = Talk(lambda _: ACCEPTED, leave_out=True)
    talk.send([Line(1, b"1"), Line(2, b"x", "It is too long."), Line(3, b"3")])
    assert [texts(post) for post in talk.posts] == [[b"1", b"3"]]
    assert talk.rejected == [(2, [Problem(2, "", "", "It is too long.")])]


def test_nothing_is_rejected_before_the_rest_of_its_request_is_acknowledged() -> None:
    strict = StrictServer(100, 10_000, {1}, 100)
    talk = Talk(
        lambda post: Lost("gone", reached=False) if b"1" not in texts(post) else strict(post),
        Options(give_up_seconds=1),
        leave_out=True,
    )
    with pytest.raises(GaveUp):
        talk.send(numbered(3))
    assert talk.rejected == []
    assert (talk.report.rejected, talk.report.next_number) == (0, 0)


def test_no_events_are_no_request() -> None:
    talk = Talk(lambda _: ACCEPTED)
    assert talk.send([]).acknowledged == 0
    assert talk.posts == []
