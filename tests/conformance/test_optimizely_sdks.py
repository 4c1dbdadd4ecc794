"""The published Optimizely SDKs, unchanged, find in segmentd the platform that they expect."""

import logging
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from optimizely.odp.odp_segment_api_manager import OdpSegmentApiManager

from tests.conformance.datafile import EXPERIMENT_SEGMENT, ROLLOUT_SEGMENT, datafile
from tests.conformance.sdks import JavaScriptSdk, ListHandler, Outcome, PythonSdk, Sdk
from tests.serverprocess import ServerProcess

OFF = Outcome(fetched=True, segments=[], qualified=False, variation="off", enabled=False)
ON = Outcome(fetched=True, segments=[ROLLOUT_SEGMENT], qualified=False, variation="on", enabled=True)
TREATMENT = Outcome(fetched=True, segments=[EXPERIMENT_SEGMENT], qualified=True, variation="treatment", enabled=True)
UNKNOWN = Outcome(fetched=False, segments=None, qualified=False, variation="off", enabled=False)
"""What a page gets when the fetch fails: the SDK decides as for a visitor in no segment."""

# A segment and its audience have different names, so that a mix-up of the two cannot pass.
AUDIENCES = {EXPERIMENT_SEGMENT: "crm-export-17", ROLLOUT_SEGMENT: "crm-export-18"}

FETCH_FAILED = ("Audience segments fetch failed",)
EVENT_REFUSED = ("ODP event send failed", "failed to send odp events")
"""How the SDKs word it: the first is common, the second is JavaScript's from version 6 on."""

OpenSdk = Callable[..., Sdk]


@pytest.fixture(params=["python", "optimizely-sdk-6", "optimizely-sdk-5"])
def open_sdk(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[OpenSdk]:
    """Opens the SDK of this round against the server, with the public key unless another is given."""
    create_segments(server)
    started: list[JavaScriptSdk] = []

    def open_it(public_key: str = server.public_key) -> Sdk:
        content = datafile(server.url, public_key)
        if request.param == "python":
            return PythonSdk(content)
        request.getfixturevalue("javascript")
        started.append(JavaScriptSdk(request.param, content))
        return started[-1]

    yield open_it
    for sdk in started:
        sdk.abandon()


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user that no other test knows."""
    return f"user-{zlib.crc32(request.node.nodeid.encode()):08x}"


def create_segments(server: ServerProcess) -> None:
    with server.client(server.private_key) as client:
        for segment, audience in AUDIENCES.items():
            definition = {"external": {"external_audience_id": audience}}
            answer = client.post(f"/v3/segments/{segment}", json={"definition": definition})
            assert answer.status_code in {200, 201}, answer.text


def passthrough(action: str, user: str, segment: str, **data: Any) -> dict[str, Any]:
    return {
        "type": "passthrough",
        "action": action,
        "identifiers": {"fs_user_id": user},
        "data": {"audience_id": AUDIENCES[segment], **data},
    }


def tell(server: ServerProcess, *events: dict[str, Any]) -> None:
    """Send events as a customer data platform does."""
    with server.client(server.private_key) as client:
        answer = client.post("/v3/events", json=list(events))
        assert answer.status_code == 202, answer.text


def segments_of(server: ServerProcess, identifier: str, value: str) -> list[str]:
    """Ask GraphQL without any SDK."""
    query = (
        f"query($value: String) {{ customer({identifier}: $value) {{ audiences {{ edges {{ node {{ name }} }} }} }} }}"
    )
    with server.client(server.public_key) as client:
        answer = client.post("/v3/graphql", json={"query": query, "variables": {"value": value}})
    assert answer.status_code == 200, answer.text
    return [edge["node"]["name"] for edge in answer.json()["data"]["customer"]["audiences"]["edges"]]


def reported(logs: list[str], wordings: tuple[str, ...]) -> list[str]:
    return [line for line in logs if any(wording in line for wording in wordings)]


def test_a_decision_follows_the_membership(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    sdk = open_sdk()
    assert sdk.decide(user) == OFF
    tell(server, passthrough("qualify", user, EXPERIMENT_SEGMENT))
    assert sdk.decide(user) == TREATMENT
    tell(server, passthrough("disqualify", user, EXPERIMENT_SEGMENT))
    assert sdk.decide(user) == OFF
    tell(server, passthrough("qualify", user, ROLLOUT_SEGMENT))
    assert sdk.decide(user) == ON
    # Version 5 of the JavaScript SDK has meanwhile sent one `fullstack/identified` event for every user context.
    assert not reported(sdk.close(), FETCH_FAILED + EVENT_REFUSED)


def test_a_user_in_two_segments_gets_both(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    sdk = open_sdk()
    tell(server, *(passthrough("qualify", user, segment) for segment in AUDIENCES))
    outcome = sdk.decide(user)
    sdk.close()
    assert outcome.segments is not None
    assert sorted(outcome.segments) == sorted(AUDIENCES)
    assert (outcome.qualified, outcome.variation) == (True, "treatment")


def test_another_user_is_not_touched(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    sdk = open_sdk()
    tell(server, passthrough("qualify", user, EXPERIMENT_SEGMENT))
    assert sdk.decide(f"{user}, another") == OFF
    sdk.close()


@pytest.mark.parametrize("name", ["müller 🏃", "with space", "a/b?c=d&e", "#{$x}", "0", "o'brien"])
def test_an_unusual_user_id_survives_the_way(open_sdk: OpenSdk, server: ServerProcess, user: str, name: str) -> None:
    sdk, name = open_sdk(), f"{name} {user}"
    tell(server, passthrough("qualify", name, EXPERIMENT_SEGMENT))
    assert sdk.decide(name) == TREATMENT
    sdk.close()


def test_passthrough_events_sent_through_the_sdk_are_applied(
    open_sdk: OpenSdk, server: ServerProcess, user: str
) -> None:
    audience, identifiers = AUDIENCES[EXPERIMENT_SEGMENT], {"fs_user_id": user}
    sdk = open_sdk()
    sdk.send("qualify", identifiers, {"audience_id": audience, "ts": 1_700_000_000}, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == [EXPERIMENT_SEGMENT]

    sdk = open_sdk()
    sdk.send("disqualify", identifiers, {"audience_id": audience, "ts": 1_700_000_000.5}, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == []


def test_an_event_without_ts_counts_from_its_receipt(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    long_ago = time.time_ns() // 10**9 - 86_400
    tell(server, passthrough("disqualify", user, EXPERIMENT_SEGMENT, ts=long_ago))
    sdk = open_sdk()
    sdk.send("qualify", {"fs_user_id": user}, {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == [EXPERIMENT_SEGMENT]


def test_closing_the_sdk_delivers_every_queued_event(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    users = [f"{user} {number}" for number in range(25)]
    sdk = open_sdk()
    for each in users:
        sdk.send("qualify", {"fs_user_id": each}, {"audience_id": AUDIENCES[ROLLOUT_SEGMENT]}, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert [segments_of(server, "fs_user_id", each) for each in users] == [[ROLLOUT_SEGMENT]] * len(users)


def test_an_email_is_one_identifier_in_any_case(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    mailbox = f"{user}@Example.COM"
    sdk = open_sdk()
    sdk.send("qualify", {"email": mailbox}, {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "email", mailbox.lower()) == [EXPERIMENT_SEGMENT]


def test_events_of_other_types_are_accepted_and_change_nothing(
    open_sdk: OpenSdk, server: ServerProcess, user: str
) -> None:
    tell(server, passthrough("qualify", user, EXPERIMENT_SEGMENT))
    audience = AUDIENCES[EXPERIMENT_SEGMENT]
    sdk = open_sdk()
    sdk.send("identified", {"fs_user_id": user, "vuid": "vuid_1", "email": "a@example.com"}, {}, "fullstack")
    sdk.send("disqualify", {"fs_user_id": user}, {"audience_id": audience}, "fullstack")
    sdk.send("bought", {"loyalty_card": "17"}, {"price": 9.99, "gift": True, "note": None}, "order")
    assert sdk.decide(user) == TREATMENT
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == [EXPERIMENT_SEGMENT]


def test_a_low_identifier_beside_a_high_one_is_ignored(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    data = {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}
    vuid = f"vuid_{user}"
    sdk = open_sdk()
    sdk.send("qualify", {"fs_user_id": user, "vuid": vuid}, data, "passthrough")
    assert not reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == [EXPERIMENT_SEGMENT]
    assert segments_of(server, "vuid", vuid) == []


def test_a_vuid_as_user_is_in_no_segment_and_no_error(open_sdk: OpenSdk) -> None:
    # The JavaScript SDKs ask by `vuid` instead of `fs_user_id` when the user id looks like one.
    sdk = open_sdk()
    assert sdk.decide("vuid_0123456789abcdef0123456789a") == OFF
    assert not reported(sdk.close(), FETCH_FAILED)


def test_a_user_id_that_breaks_the_sdks_own_json_is_a_failed_fetch(open_sdk: OpenSdk, user: str) -> None:
    # The JavaScript SDKs paste the user id into JSON without escaping it; Python's escapes it and finds nobody.
    sdk = open_sdk()
    assert sdk.decide(f'{user} "the second"') in (OFF, UNKNOWN)
    sdk.close()


def test_an_invalid_event_is_refused_and_the_sdk_says_so(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    two_high = {"fs_user_id": user, "customer_id": user}
    sdk = open_sdk()
    sdk.send("qualify", two_high, {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}, "passthrough")
    assert reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == []
    assert segments_of(server, "customer_id", user) == []


def test_a_wrong_key_reads_nothing_and_the_sdk_says_so(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    tell(server, passthrough("qualify", user, EXPERIMENT_SEGMENT))
    sdk = open_sdk("no such key")
    assert sdk.decide(user) == UNKNOWN
    assert reported(sdk.close(), FETCH_FAILED)


def test_a_wrong_key_writes_nothing_and_the_sdk_says_so(open_sdk: OpenSdk, server: ServerProcess, user: str) -> None:
    sdk = open_sdk("no such key")
    sdk.send("qualify", {"fs_user_id": user}, {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}, "passthrough")
    assert reported(sdk.close(), EVENT_REFUSED)
    assert segments_of(server, "fs_user_id", user) == []


def test_the_python_sdk_shows_the_reasons_that_the_server_gives(server: ServerProcess, user: str) -> None:
    create_segments(server)
    sdk = PythonSdk(datafile(server.url, server.public_key))
    sdk.send("qualify", {"vuid": user}, {"audience_id": AUDIENCES[EXPERIMENT_SEGMENT]}, "passthrough")
    (line,) = reported(sdk.close(), EVENT_REFUSED)
    assert '"event":0' in line.replace(" ", "")
    assert "identifiers" in line


def test_the_python_sdk_shows_the_classification_of_a_query_error(server: ServerProcess) -> None:
    # Not reachable through a user context, which always asks for one configured identifier.
    handler = ListHandler()
    logger = logging.Logger("optimizely", logging.DEBUG)
    logger.addHandler(handler)
    manager = OdpSegmentApiManager(logger)
    assert manager.fetch_segments(server.public_key, server.url, "no_such_identifier", "u", ["beta_testers"]) is None
    assert handler.lines == ["Audience segments fetch failed (ValidationError)."]
