"""What the right answers are, and whether a contestant gives them.

Owns the checks that wrk cannot make: each request against its own answer, as JSON. From the answers that pass it
learns the exact bytes, which wrk then compares in every answer of a run. Never measures.
"""

import contextlib
import http.client
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import BenchError, Endpoint

GRAPHQL: Final = "/v3/graphql"
EVENTS: Final = "/v3/events"
CHECKED_REQUESTS: Final = 160
CHECKING_CONNECTIONS: Final = 8
ANSWER_SECONDS_MAX: Final = 60


class Question(NamedTuple):
    """A request body and the JSON value that answers it."""

    body: str
    answer: object


def check_all(endpoint: Endpoint, questions: Sequence[Question]) -> list[bytes]:
    """Ask all, several at a time, and return the bodies. Raises BenchError for the first wrong answer."""
    shares = [questions[start::CHECKING_CONNECTIONS] for start in range(CHECKING_CONNECTIONS)]
    with ThreadPoolExecutor(CHECKING_CONNECTIONS) as pool:
        bodies = list(pool.map(lambda share: _check_in_turn(endpoint, share), shares))
    return [bodies[place % CHECKING_CONNECTIONS][place // CHECKING_CONNECTIONS] for place in range(len(questions))]


def _check_in_turn(endpoint: Endpoint, questions: Sequence[Question]) -> list[bytes]:
    connection = http.client.HTTPConnection(endpoint.host, timeout=ANSWER_SECONDS_MAX)
    headers = {"x-api-key": endpoint.public_key, "content-type": "application/json"}
    with contextlib.closing(connection):
        return [_checked(connection, headers, question) for question in questions]


def _checked(connection: http.client.HTTPConnection, headers: dict[str, str], question: Question) -> bytes:
    connection.request("POST", GRAPHQL, question.body, headers)
    response = connection.getresponse()
    body = response.read()
    kind = response.headers.get_content_type()
    if response.status != 200 or kind not in ("application/json", "application/graphql-response+json"):
        raise BenchError(f"{question.body}: expected 200 and JSON, got {response.status} {kind} {body[:400]!r}")
    if json.loads(body) != question.answer:
        raise BenchError(f"{question.body}: expected {json.dumps(question.answer)}, got {body[:400]!r}")
    return body


def write_work_file(path: Path, endpoint: Endpoint, questions: Sequence[Question]) -> None:
    """The file for `lua/queries.lua`, with answers learnt from (and checked on) this contestant.

    Beyond one request a class, a sample of the rest is checked request by request.
    """
    classes: dict[str, int] = {}
    of_class: list[Question] = []
    lines = []
    for question in questions:
        answer = json.dumps(question.answer)
        if answer not in classes:
            classes[answer] = len(classes)
            of_class.append(question)
        lines.append(f"Q\t{classes[answer]}\t{question.body}")
    step = max(1, len(questions) // CHECKED_REQUESTS)
    learnt = check_all(endpoint, [*of_class, *questions[::step]])[: len(of_class)]
    path.write_text("\n".join([*_answer_lines(learnt), *lines]) + "\n")


def _answer_lines(bodies: Iterable[bytes]) -> Iterable[str]:
    for number, body in enumerate(bodies):
        text = body.decode()
        if "\n" in text or "\t" in text:
            raise BenchError(
                f"the answer {text[:200]!r} has more than one line or a tab: wrk's script cannot compare it"
            )
        yield f"A\t{number}\t{text}"
