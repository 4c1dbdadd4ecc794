"""Traces of real servers, as a collector gets them: continued, complete, nothing personal in them, never in the way."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.walk import free_port
from tests.imports.test_server import imported
from tests.members.service import TS, event, segment, send, wait_until
from tests.observability.collector import Collector, Received, collecting
from tests.serverprocess import ServerProcess, log_shown

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
QUERY = '{ customer(fs_user_id: "u") { audiences(subset: ["s"]) { edges { node { name } } } } }'
# Whatever else turns up in a span is to be argued here first.
ATTRIBUTES = {
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "http.request.body.size",
    "http.response.body.size",
    "segmentd.road",
    "segmentd.key",
    "segmentd.changes",
    "segmentd.commit.requests",
    "segmentd.commit.changes",
    "segmentd.graphql.answered_by",
    "segmentd.graphql.document",
    "segmentd.graphql.document_bytes",
    "segmentd.graphql.bytes_out",
    "segmentd.audience",
    "segmentd.import.id",
    "segmentd.import.state",
    "segmentd.import.rows",
    "segmentd.import.rejected",
    "segmentd.import.qualified",
    "segmentd.import.disqualified",
}
RESOURCE = {"service.name", "service.version", "service.instance.id", "segmentd.process"} | {
    f"telemetry.sdk.{name}" for name in ("language", "name", "version")
}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def module_server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Traces nothing but what a client wants traced."""
    traces = {"endpoint": collector.endpoint, "sampling_share": 0, "export_seconds": 0.05}
    with ServerProcess(tmp_path_factory.mktemp("server"), {"traces": traces}) as server:
        yield server
        server.terminate()


@pytest.fixture
def server(module_server: ServerProcess, collector: Collector) -> Iterator[ServerProcess]:
    collector.spans.clear()
    collector.bodies.clear()
    with log_shown(module_server):
        yield module_server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.client(server.private_key) as client:
        yield client


def only(spans: list[Received]) -> Received:
    (span,) = spans
    return span


def test_a_clients_trace_is_continued_through_queue_and_commit(client: httpx.Client, collector: Collector) -> None:
    events = [event("vip", ("fs_user_id", user, TS)) for user in ("u", "v")]
    assert client.post("/v3/events", json=events, headers=SAMPLED).status_code == 202
    request = only(collector.named("POST /v3/events"))
    wait, commit = only(collector.named("wait for commit")), only(collector.named("commit"))
    assert (request.trace_id, request.parent, request.kind) == (TRACE, PARENT, "SPAN_KIND_SERVER")
    assert (wait.trace_id, wait.parent, wait.kind) == (TRACE, request.span_id, "SPAN_KIND_INTERNAL")
    # A commit belongs to all requests in it, so it is a trace of its own, and they are linked.
    assert (commit.parent, commit.links, wait.links) == ("", (wait.span_id,), (commit.span_id,))
    assert commit.trace_id != TRACE
    assert request.seconds >= wait.seconds >= commit.seconds > 0
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["segmentd.road"] == "lane"
    assert request.attributes["segmentd.key"] == "test-private"
    assert wait.attributes == {"segmentd.changes": 2}
    assert commit.attributes == {"segmentd.commit.requests": 1, "segmentd.commit.changes": 2}
    assert request.resource["service.name"] == "segmentd"
    assert request.resource["segmentd.process"] == "owner"


def test_an_execution_says_what_answered_it(client: httpx.Client, collector: Collector) -> None:
    for query in (QUERY, "{ __schema { types { name } } }", "{ nobody }"):
        assert client.post("/v3/graphql", json={"query": query}, headers=SAMPLED).status_code == 200
    executions = collector.named("graphql.execute", 3)
    requests = {span.span_id for span in collector.named("POST /v3/graphql", 3)}
    assert {span.parent for span in executions} == requests
    assert [span.attributes["segmentd.graphql.answered_by"] for span in executions] == ["plan", "executor", "refused"]
    assert all(re.fullmatch("[0-9a-f]{16}", span.attributes["segmentd.graphql.document"]) for span in executions)


def test_the_main_road_refusals_and_unknown_paths_are_traced_too(client: httpx.Client, collector: Collector) -> None:
    for path, key in (("/v3/segments/none", client.headers["x-api-key"]), ("/v3/segments", "wrong"), ("/nowhere", "")):
        client.get(path, headers={**SAMPLED, "x-api-key": key})
    found = {
        span.name: span.attributes["http.response.status_code"]
        for name in ("GET /v3/segments/{segment_id}", "GET /v3/segments", "GET unmatched")
        for span in collector.named(name)
    }
    assert found == {"GET /v3/segments/{segment_id}": 404, "GET /v3/segments": 403, "GET unmatched": 404}
    assert not any(span.failed for span in collector.spans)


def test_what_a_client_wants_not_traced_is_not_and_neither_is_what_nobody_decided(
    client: httpx.Client, collector: Collector
) -> None:
    for headers in (UNSAMPLED, {}, {"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, {"traceparent": "garbage"}):
        assert client.post("/v3/graphql", json={"query": QUERY}, headers=headers).status_code == 200
    assert client.post("/v3/graphql", json={"query": QUERY}, headers=SAMPLED).status_code == 200
    assert len(collector.named("POST /v3/graphql")) == 1


def test_an_import_is_a_trace_with_a_span_for_each_phase(client: httpx.Client, collector: Collector) -> None:
    job = imported(client, ["u", "v"], f"?as_of={TS}")
    whole = only(collector.named("import"))
    phases = [only(collector.named(f"import {phase}")) for phase in ("checking", "qualifying", "raising", "sweeping")]
    assert {(span.trace_id, span.parent) for span in phases} == {(whole.trace_id, whole.span_id)}
    assert whole.attributes == {
        "segmentd.import.id": job["id"], "segmentd.audience": "vip", "segmentd.import.state": "completed",
        "segmentd.import.rows": 2, "segmentd.import.rejected": 0,
        "segmentd.import.qualified": job["qualified"], "segmentd.import.disqualified": job["disqualified"],
    }  # fmt: skip
    assert not whole.failed
    assert sum(span.seconds for span in phases) <= whole.seconds


def test_nothing_personal_and_no_secret_leaves_in_a_span(
    server: ServerProcess, client: httpx.Client, collector: Collector
) -> None:
    person = "ada.lovelace"
    headers = {**SAMPLED, "x-request-id": f"{person}-1", "user-agent": person, "tracestate": f"v={person}"}
    sent = json.dumps([event("vip", ("email", f"{person}@x.example", TS))]).encode()
    client.post("/v3/events", content=sent, headers=headers)
    client.post("/v3/events", content=gzip.compress(sent), headers={**headers, "content-encoding": "gzip"})
    client.post("/v3/events", json=[event("vip", ("email", person + "\0", TS))], headers=headers)
    literal = (
        f'query ada_lovelace_wants {{ customer(email: "{person}") {{ audiences {{ edges {{ node {{ name }} }} }} }} }}'
    )
    client.post("/v3/graphql", json={"query": literal, "operationName": "ada_lovelace_wants"}, headers=headers)
    client.get("/v3/graphql", params={"query": literal}, headers=headers)
    client.get("/v3/customers", params={"identifier": "email", "value": person}, headers=headers)
    client.get(f"/v3/{person}/x", headers=headers)
    client.get("/v3/segments", headers={**headers, "x-api-key": f"{person}-secret"})
    client.post("/v3/compliance/gdpr/delete", json=[{"email": person}], headers=headers)
    imported(client, [person], f"?as_of={TS}")
    segment(client, "last", "vip")
    client.get("/v3/segments/last", headers=headers)
    collector.named("GET /v3/segments/{segment_id}")
    collector.named("import sweeping")
    assert len(collector.spans) > 15
    seen = b"".join(collector.bodies).lower()
    for said in (person, "lovelace", server.private_key, server.public_key, server.url.rpartition(":")[2]):
        assert said.encode() not in seen
    assert {name for span in collector.spans for name in span.attributes} <= ATTRIBUTES
    assert {name for span in collector.spans for name in span.resource} <= RESOURCE


def test_a_log_line_names_the_span_of_its_request(tmp_path: Path, collector: Collector) -> None:
    sections = {
        "traces": {"endpoint": collector.endpoint, "sampling_share": 1, "export_seconds": 0.05},
        "log": {"format": "json", "slow_query_ms_min": 0.001},
    }
    collector.spans.clear()
    with ServerProcess(tmp_path, sections) as server, server.client(server.public_key) as client:
        assert client.post("/v3/graphql", json={"query": QUERY}).status_code == 200
        request = only(collector.named("POST /v3/graphql"))
        line = wait_until(lambda: next((line for line in server.log if '"slow query"' in line), None))
    assert json.loads(line)["traceparent"] == f"00-{request.trace_id}-{request.span_id}-01"
    assert request.parent == ""


def test_followers_trace_what_they_answer(tmp_path: Path, collector: Collector) -> None:
    traces = {"endpoint": collector.endpoint, "sampling_share": 0, "export_seconds": 0.05}
    collector.spans.clear()
    with ServerProcess(tmp_path, {"traces": traces, "server": {"followers": 1}}) as server:
        with server.client() as client:
            wait_until(lambda: "segmentd_followers_ready 1.0" in client.get("/metrics").text)

        def processes() -> bool:
            with server.client(server.public_key) as client:
                client.post("/v3/graphql", json={"query": QUERY}, headers=SAMPLED)
            found = {span.resource["segmentd.process"] for span in collector.spans if span.name == "graphql.execute"}
            return any(name.startswith("follower") for name in found)

        wait_until(processes)
        server.terminate()


# The collector in trouble


def outcomes(client: httpx.Client) -> dict[str, float]:
    pattern = r'^segmentd_trace_spans_total\{outcome="(\w+)"\} (\S+)$'
    return {name: float(count) for name, count in re.findall(pattern, client.get("/metrics").text, re.MULTILINE)}


def asked(client: httpx.Client, times: int) -> None:
    for _ in range(times):
        assert client.post("/v3/graphql", json={"query": QUERY}).status_code == 200


def sections_of(endpoint: str, **traces: Any) -> dict[str, dict[str, Any]]:
    bounds = {"export_seconds": 0.05, "export_seconds_max": 0.5, "stop_seconds_max": 0.5}
    return {"traces": {"endpoint": endpoint, "sampling_share": 1, **bounds, **traces}}


def test_a_collector_that_is_down_costs_spans_and_nothing_else_and_is_told_of_once(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(tmp_path, sections_of(f"http://127.0.0.1:{port}/v1/traces")) as server:
        with server.client(server.public_key) as client:
            asked(client, 5)
            wait_until(lambda: outcomes(client)["failed"] >= 10)
            asked(client, 5)
            wait_until(lambda: outcomes(client)["failed"] >= 20)
            assert outcomes(client)["exported"] == 0
        server.terminate()
        assert len([line for line in server.log if "traces cannot be exported" in line]) == 1
        assert not [line for line in server.log if "Traceback" in line]


def test_a_collector_that_hangs_is_waited_for_by_nobody_and_what_waits_for_it_is_bounded(tmp_path: Path) -> None:
    with collecting() as collector:
        collector.answer.clear()
        sections = sections_of(collector.endpoint, queue_spans_max=10, batch_spans_max=5, export_seconds_max=3_600)
        with ServerProcess(tmp_path, sections) as server:
            with server.client(server.public_key) as client:
                asked(client, 1)
                assert collector.asked.wait(60)
                asked(client, 30)
                send(client, [event("vip", ("fs_user_id", "u", TS))])
                found = outcomes(client)
                assert (found["exported"], found["failed"]) == (0, 0)
                # Those that hang, and those that wait, are the bounds; of the rest none is kept.
                assert found["dropped"] >= 60 - 5 - 10
            # It hangs still, and the server ends all the same.
            server.terminate()


def test_a_collector_that_comes_back_gets_the_next_ones(tmp_path: Path) -> None:
    with collecting() as collector:
        collector.status = 400
        with ServerProcess(tmp_path, sections_of(collector.endpoint)) as server:
            with server.client(server.public_key) as client:
                asked(client, 1)
                wait_until(lambda: outcomes(client)["failed"] >= 2)
                collector.status = 200
                asked(client, 1)
                collector.named("graphql.execute")
            server.terminate()
            assert len([line for line in server.log if "traces are exported again" in line]) == 1


def test_a_stop_exports_what_is_left(tmp_path: Path) -> None:
    with collecting() as collector:
        sections = sections_of(collector.endpoint, export_seconds=3_600, stop_seconds_max=60)
        with ServerProcess(tmp_path, sections) as server:
            with server.client(server.public_key) as client:
                asked(client, 3)
                assert collector.spans == []
            server.terminate()
        assert len(collector.named("graphql.execute", 3)) == 3
