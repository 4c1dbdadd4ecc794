"""The datafile of one flag whose answer hangs on two segments, as Optimizely would serve it.

Who is in `EXPERIMENT_SEGMENT` gets the variation `treatment` of an A/B test, else who is in `ROLLOUT_SEGMENT` gets
`on`, everyone else gets `off`. The `odp` integration sends the SDK to the server under test.
"""

import json
from typing import Any

FLAG = "beta_banner"
EXPERIMENT_SEGMENT = "beta_testers"
ROLLOUT_SEGMENT = "newsletter_readers"


def datafile(host: str, public_key: str) -> dict[str, Any]:
    """A datafile of version 4 whose `odp` integration is at `host` (scheme and port, no slash at the end)."""
    audiences = {"audience-1": EXPERIMENT_SEGMENT, "audience-2": ROLLOUT_SEGMENT}
    return {
        "version": "4",
        "revision": "1",
        "projectId": "project-1",
        "accountId": "account-1",
        "sdkKey": "sdk-key-1",
        "environmentKey": "test",
        "anonymizeIP": True,
        "botFiltering": False,
        "sendFlagDecisions": True,
        "attributes": [{"id": "attribute-1", "key": "plan"}],
        "audiences": [_untyped_audience(audience_id, segment) for audience_id, segment in audiences.items()],
        "typedAudiences": [_audience(audience_id, segment) for audience_id, segment in audiences.items()],
        "events": [],
        "groups": [],
        "variables": [],
        "integrations": [{"key": "odp", "host": host, "publicKey": public_key}],
        "featureFlags": [
            {
                "id": "flag-1",
                "key": FLAG,
                "experimentIds": ["experiment-1"],
                "rolloutId": "rollout-1",
                "variables": [],
            }
        ],
        "experiments": [_rule("experiment-1", ["audience-1"], "treatment", enabled=True)],
        "rollouts": [
            {
                "id": "rollout-1",
                "experiments": [
                    _rule("rule-1", ["audience-2"], "on", enabled=True),
                    _rule("rule-2", [], "off", enabled=False),
                ],
            }
        ],
    }


def _qualified(segment: str) -> list[Any]:
    condition = {"type": "third_party_dimension", "name": "odp.audiences", "match": "qualified", "value": segment}
    return ["and", ["or", ["or", condition]]]


def _audience(audience_id: str, segment: str) -> dict[str, Any]:
    return {"id": audience_id, "name": segment, "conditions": _qualified(segment)}


def _untyped_audience(audience_id: str, segment: str) -> dict[str, Any]:
    # Old SDKs read conditions as a string; a real datafile lists every audience in both forms.
    return {"id": audience_id, "name": segment, "conditions": json.dumps(_qualified(segment))}


def _rule(rule_id: str, audience_ids: list[str], variation: str, *, enabled: bool) -> dict[str, Any]:
    return {
        "id": rule_id,
        "key": rule_id,
        "status": "Running",
        "layerId": f"layer of {rule_id}",
        "audienceIds": audience_ids,
        "forcedVariations": {},
        "variations": [{"id": f"{rule_id}-{variation}", "key": variation, "featureEnabled": enabled, "variables": []}],
        "trafficAllocation": [{"entityId": f"{rule_id}-{variation}", "endOfRange": 10000}],
    }
