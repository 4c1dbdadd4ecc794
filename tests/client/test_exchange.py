"""One request until it counts: repeated as it is, not before Retry-After, not for ever. No network, no time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.client.answers import Answer, Lost, retry_after_seconds
from segmentd.client.exchange import LATER
from segmentd.client.report import GaveUp, Options, Refused
from tests.client.conversation import ACCEPTED, Talk, in_turn, numbered, refusal

DOWN = Lost("Connection refused", reached=False)
BROKEN = Lost("the connection broke", reached=True)


@pytest.mark.parametrize("trouble", [*(Answer(status, b"") for status in sorted(LATER)), DOWN, BROKEN])
def test_a_request_is_repeated_byte_for_byte_until_it_is_taken(trouble: Answer | Lost) -> None:
    talk = Talk(in_turn(trouble, trouble), Options(gzip=True))
    report = talk.send(numbered(3))
    assert len(talk.posts) == 3
    assert talk.posts[0] == talk.posts[1] == talk.posts[2]
    assert (report.acknowledged, report.requests, report.retries, report.unknown) == (3, 3, 2, None)


def test_pauses_double_up_to_the_longest() -> None:
    options = Options(pause_seconds_min=1, pause_seconds_max=5)
    talk = Talk(in_turn(*[DOWN] * 5), options)
    talk.send(numbered(1))
    assert [wait.seconds for wait in talk.waits] == [1, 2, 4, 5, 5]
    assert {wait.reason for wait in talk.waits} == {"Connection refused"}


def test_retry_after_is_waited_for_even_if_the_pause_would_be_shorter() -> None:
    talk = Talk(in_turn(Answer(503, b"", 7), Answer(429, b"", 11)), Options(pause_seconds_min=1))
    talk.send(numbered(1))
    assert [wait.seconds for wait in talk.waits] == [7, 11]


def test_a_retry_after_beyond_the_end_is_not_waited_for() -> None:
    talk = Talk(lambda _: Answer(429, b"", 3_600), Options(give_up_seconds=60))
    with pytest.raises(GaveUp, match=r"\(status 429\); given up after 1 try"):
        talk.send(numbered(1))
    assert talk.waits == []


@given(st.floats(0, 100), st.floats(0.01, 10), st.floats(0, 5), st.floats(0, 20))
def test_the_last_try_begins_no_later_than_the_time_that_was_given(
    give_up: float, pause: float, seconds_a_post: float, retry_after: float
) -> None:
    options = Options(give_up_seconds=give_up, pause_seconds_min=pause)
    talk = Talk(lambda _: Answer(503, b"", retry_after), options, seconds_a_post=seconds_a_post)
    with pytest.raises(GaveUp):
        talk.send(numbered(1))
    assert sum(wait.seconds for wait in talk.waits) <= give_up + 1e-6
    assert talk.now <= give_up + 2 * seconds_a_post + 1e-6
    assert all(wait.seconds >= min(retry_after, give_up) - 1e-6 for wait in talk.waits[:-1])


def test_the_time_is_counted_anew_for_each_request() -> None:
    options = Options(events_per_request_max=1, give_up_seconds=10, pause_seconds_min=8)
    talk = Talk(in_turn(DOWN, ACCEPTED, DOWN, ACCEPTED), options)
    assert talk.send(numbered(2)).acknowledged == 2


@pytest.mark.parametrize(
    ("troubles", "unknown"),
    [
        ([DOWN], None),
        ([Answer(429, b"")], None),
        ([Answer(503, b"")], (0, 1)),
        ([BROKEN], (0, 1)),
        ([Answer(500, b"")], (0, 1)),
        ([BROKEN, DOWN], (0, 1)),
    ],
)
def test_who_gives_up_says_whether_the_request_may_have_been_applied(
    troubles: list[Answer | Lost], unknown: tuple[int, int] | None
) -> None:
    turn = iter([*troubles, *[DOWN] * 100])
    talk = Talk(lambda _: next(turn), Options(give_up_seconds=5))
    with pytest.raises(GaveUp):
        talk.send(numbered(2))
    assert (talk.report.acknowledged, talk.report.next_number, talk.report.unknown) == (0, 0, unknown)


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_refusal_ends_it_and_takes_the_doubt_only_if_there_was_none_before(doubtful: bool) -> None:
    answers = [BROKEN] if doubtful else []
    talk = Talk(in_turn(*answers, Answer(403, b'{"message":"Forbidden"}')))
    with pytest.raises(Refused, match=r"^Forbidden \(status 403\)$"):
        talk.send(numbered(2))
    assert talk.report.unknown == ((0, 1) if doubtful else None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"detail":"x"}'])
def test_a_refusal_of_any_form_is_told(body: bytes) -> None:
    with pytest.raises(Refused, match=r"status 418"):
        Talk(in_turn(Answer(418, body))).send(numbered(1))


def test_whoever_is_interrupted_in_the_middle_of_a_request_knows_which_events_are_in_doubt() -> None:
    talk = Talk(in_turn(ACCEPTED), Options(events_per_request_max=2))
    answer = talk.server

    def interrupted(post: object) -> Answer | Lost:
        if talk.report.next_number == 2:
            raise KeyboardInterrupt
        return answer(talk.posts[-1])

    talk.server = interrupted
    with pytest.raises(KeyboardInterrupt):
        talk.send(numbered(4))
    assert (talk.report.acknowledged, talk.report.next_number, talk.report.unknown) == (2, 2, (2, 3))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("0", 0),
        (" 17 ", 17),
        ("soon", 0),
        ("-1", 0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float) -> None:
    assert retry_after_seconds(value, now_seconds=10) == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        {"events_per_request_max": 0},
        {"body_bytes_max": 0},
        {"answer_seconds_max": 0},
        {"give_up_seconds": -1},
        {"pause_seconds_min": 0},
        {"pause_seconds_min": 2, "pause_seconds_max": 1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least|more than"):
        Options(**wrong)  # type: ignore[arg-type]


def test_a_refusal_of_the_whole_body_is_no_reason_to_wait() -> None:
    talk = Talk(in_turn(refusal(415, {"message": "Wrong type."})))
    with pytest.raises(Refused, match="Wrong type"):
        talk.send(numbered(1))
    assert talk.waits == []
