"""Connections that begin with a follower or the owner and need the other one: nothing is lost or answered twice."""

import re
from collections.abc import Iterator

import pytest

from tests.followers.processes import FollowedServer, events, names, query, request, until
from tests.serverprocess import log_shown

TIME = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")
SEGMENT = request("PUT", "/v3/segments/gold", b'{"definition":{"external":{"external_audience_id":"a"}}}')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FollowedServer]:
    with FollowedServer(tmp_path_factory.mktemp("followed")) as running:
        with running.connection() as connection:
            assert connection.ask(SEGMENT).status == 201
        with log_shown(running):
            yield running


def handed_to_owner(server: FollowedServer) -> float:
    return server.metrics()['segmentd_connections_handed_over_total{to="owner"}']


def test_a_follower_answers_queries_by_itself(server: FollowedServer) -> None:
    before = handed_to_owner(server)
    with server.to_follower() as connection:
        for _ in range(20):
            assert names(connection.ask(query("nobody"))) == []
    # Asking for metrics may itself have begun with the follower.
    assert handed_to_owner(server) <= before + 1


def test_a_client_that_hops_between_processes_reads_what_it_was_promised(server: FollowedServer) -> None:
    with server.to_owner() as owner, server.to_follower() as follower:
        for number in range(200):
            qualify = number % 3 != 2
            assert owner.ask(events(("hopper", "a", qualify), ts=1_700_000_000 + number)).status == 202
            expected = ["gold"] if qualify else []
            assert names(follower.ask(query("hopper"))) == expected
            assert names(owner.ask(query("hopper"))) == expected


def test_a_connection_of_a_follower_that_sends_an_event_goes_on_with_the_owner(server: FollowedServer) -> None:
    with server.to_follower() as connection:
        before = handed_to_owner(server)
        assert connection.ask(events(("moved", "a", True))).status == 202
        assert names(connection.ask(query("moved"))) == ["gold"]
        assert connection.ask(request("GET", "/v3/segments")).json == {"segment_ids": ["gold"]}
        assert names(connection.ask(query("moved"))) == ["gold"]
        assert handed_to_owner(server) > before


def test_what_was_sent_ahead_is_answered_in_order_by_whichever_process(server: FollowedServer) -> None:
    with server.to_follower() as connection:
        connection.send(
            query("ahead")
            + query("ahead", "name revision")
            + events(("ahead", "a", True))
            + query("ahead")
            + request("GET", "/v3/segments")
            + query("ahead", "name size")
            + events(("ahead", "a", False))
            + query("ahead")
        )
        replies = [connection.reply() for _ in range(8)]
    assert [reply.status for reply in replies] == [200, 200, 202, 200, 200, 200, 202, 200]
    assert [names(replies[number]) for number in (0, 1, 3, 5, 7)] == [[], [], ["gold"], ["gold"], []]


def test_requests_cut_anywhere_are_whole_after_the_hand_over(server: FollowedServer) -> None:
    sent = events(("cut", "a", True)) + query("cut")
    for cut in range(1, len(sent), 7):
        with server.to_follower() as connection:
            connection.send(sent[:cut])
            connection.send(sent[cut:])
            assert connection.reply().status == 202
            assert names(connection.reply()) == ["gold"]


def test_large_bodies_go_over_whole(server: FollowedServer) -> None:
    many = [(f"large-{number}", "a", True) for number in range(500)]
    with server.to_follower() as connection:
        assert connection.ask(events(*many)).status == 202
        assert names(connection.ask(query("large-499"))) == ["gold"]
    with server.to_follower() as connection:
        # Read whole by the follower, which finds that only the owner knows sizes.
        reply = connection.ask(query("large-1", "name size", padding=200_000))
        assert names(reply) == ["gold"]
        assert reply.json["data"]["customer"]["audiences"]["edges"][0]["node"]["size"] >= 500


def test_sizes_and_members_are_the_owners(server: FollowedServer) -> None:
    with server.to_owner() as owner:
        assert owner.ask(events(("counted", "a", True))).status == 202
    text = b'{"query":"{audiences{edges{node{name size members(first:1){totalCount}}}}}"}'
    with server.to_follower() as connection:
        (edge,) = connection.ask(request("POST", "/v3/graphql", text)).json["data"]["audiences"]["edges"]
    assert edge["node"]["size"] == edge["node"]["members"]["totalCount"] >= 1


def test_refusals_are_the_same_wherever_the_connection_began(server: FollowedServer) -> None:
    odd = [
        request("POST", "/v3/graphql", b'{"query":"{customer{audiences{edges{node{name}}}}}"}', key="wrong"),
        request("POST", "/v3/graphql", b"no json"),
        request("POST", "/v3/graphql", b'{"query":"{nothing}"}'),
        request(
            "POST", "/v3/graphql", b'{"query":"{customer(fs_user_id:\\"a\\",email:\\"b\\"){audiences{edges{cursor}}}}"}'
        ),
        request("POST", "/v3/graphql", b'{"query":"{__typename}"}', extra="accept: text/html\r\n"),
        request("DELETE", "/v3/events"),
        request("GET", "/nowhere"),
        request("OPTIONS", "/v3/graphql", extra="origin: https://a.example\r\naccess-control-request-method: POST\r\n"),
        request("POST", "/v3/graphql", b'{"query":"{__typename}"}', extra="origin: https://a.example\r\n"),
    ]
    changing = {"x-request-id", "date"}
    for sent in odd:
        answered = []
        for connect in (server.to_owner, server.to_follower):
            with connect() as connection:
                reply = connection.ask(sent)
                headers = {name: value for name, value in reply.headers.items() if name not in changing}
                body = TIME.sub(b"", reply.body.replace(reply.headers["x-request-id"].encode(), b""))
                answered.append((reply.status, headers, body))
        assert answered[0] == answered[1]


def test_a_stopped_sender_half_closes_and_gets_its_answer(server: FollowedServer) -> None:
    with server.to_follower() as connection:
        connection.send(events(("half", "a", True)))
        connection.socket.shutdown(1)
        assert connection.reply().status == 202


def test_clients_that_leave_in_the_middle_leave_no_connection_behind(server: FollowedServer) -> None:
    def connections() -> float:
        return sum(count for name, count in server.metrics().items() if name.startswith("segmentd_connections{"))

    for sent in (b"", events(("gone", "a", True))[:-5], query("gone")[:-5], events(("gone", "a", True)), query("gone")):
        for _ in range(10):
            with server.to_follower() as connection:
                connection.send(sent)
    until(lambda: connections() <= 1)  # the one that asks for the metrics
