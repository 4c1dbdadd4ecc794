"""The published Optimizely SDKs behind one small face, so that one set of tests asks the same of each.

Each adapter calls only the SDK's public methods and changes nothing in it. Decision events are switched off, because
they would go to Optimizely's own logging host.
"""

import json
import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from optimizely.decision.optimizely_decide_option import OptimizelyDecideOption
from optimizely.odp.optimizely_odp_option import OptimizelyOdpOption
from optimizely.optimizely import Optimizely

from tests.conformance.datafile import EXPERIMENT_SEGMENT, FLAG

DRIVER = Path(__file__).parent / "js" / "sdk.mjs"


class Outcome(msgspec.Struct, frozen=True):
    """What a visitor of a page would get: the answer of the fetch, and the decision made from it.

    fetched: whether the SDK calls its fetch a success. segments: None after a failed fetch.
    """

    fetched: bool
    segments: list[str] | None
    qualified: bool
    variation: str | None
    enabled: bool


class Sdk(Protocol):
    """One opened SDK client."""

    def decide(self, user: str) -> Outcome:
        """Make a user context, fetch its qualified segments past the cache, and decide the flag."""

    def send(self, action: str, identifiers: Mapping[str, str], data: Mapping[str, Any], kind: str) -> None:
        """Queue one event of type `kind`; it is sent by `close` at the latest."""

    def close(self) -> list[str]:
        """Send what is queued, end the client, return every line it logged."""


class ListHandler(logging.Handler):
    """Keeps every logged line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class PythonSdk:
    """PyPI `optimizely-sdk`."""

    def __init__(self, datafile: Mapping[str, Any]) -> None:
        self._handler = ListHandler()
        logger = logging.Logger("optimizely", logging.DEBUG)
        logger.addHandler(self._handler)
        self._client = Optimizely(datafile=json.dumps(datafile), logger=logger)

    def decide(self, user: str) -> Outcome:
        context = self._client.create_user_context(user)
        assert context is not None
        fetched = context.fetch_qualified_segments(options=[OptimizelyOdpOption.IGNORE_CACHE])
        decision = context.decide(FLAG, [OptimizelyDecideOption.DISABLE_DECISION_EVENT])
        return Outcome(
            fetched=fetched is True,
            segments=context.get_qualified_segments(),
            qualified=context.is_qualified_for(EXPERIMENT_SEGMENT),
            variation=decision.variation_key,
            enabled=decision.enabled,
        )

    def send(self, action: str, identifiers: Mapping[str, str], data: Mapping[str, Any], kind: str) -> None:
        self._client.send_odp_event(action, dict(identifiers), kind, dict(data))

    def close(self) -> list[str]:
        self._client.close()
        return self._handler.lines


class JavaScriptSdk:
    """One major of npm `@optimizely/optimizely-sdk` in a node process; `package` is its alias in package.json."""

    def __init__(self, package: str, datafile: Mapping[str, Any]) -> None:
        self._node = subprocess.Popen(
            ["node", str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._ask("open", sdk=package, datafile=datafile)

    def decide(self, user: str) -> Outcome:
        answer = self._ask("decide", user=user, flag=FLAG, segment=EXPERIMENT_SEGMENT)
        return msgspec.convert(answer, Outcome)

    def send(self, action: str, identifiers: Mapping[str, str], data: Mapping[str, Any], kind: str) -> None:
        self._ask("send", action=action, identifiers=identifiers, data=data, type=kind)

    def close(self) -> list[str]:
        self._ask("close")
        # The SDK may still be sending; its process ends when nothing is on its way any more, and tells the log last.
        output, _ = self._node.communicate()
        return [str(line) for line in json.loads(output)]

    def abandon(self) -> None:
        """End the node process of a test that failed before `close`."""
        if self._node.poll() is None:
            self._node.kill()
            self._node.communicate()

    def _ask(self, command: str, **parameters: Any) -> dict[str, Any]:
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps({"command": command, **parameters}) + "\n")
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        assert line, f"the SDK's process ended on {command!r}"
        answer: dict[str, Any] = json.loads(line)
        return answer
