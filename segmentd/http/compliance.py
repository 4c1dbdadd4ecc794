"""Requests to forget identifiers, under the names that several laws have for it.

Owns the wire form. What forgetting means is the store's and `runtime/forgetting.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from segmentd.domain.forgetting import ForgetJob, parse_request
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.http import bodies
from segmentd.http.bodies import JSON_TYPE, BodyRules
from segmentd.http.errors import NotFound
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.routing import Operation, Route
from segmentd.runtime.forgetting import ForgetStatus
from segmentd.settings import ComplianceSettings

LAWS: Final = ("gdpr", "ccpa", "lgpd")


class Forgets(Protocol):
    """What this needs of `segmentd.runtime.forgetting.Forgetting`."""

    async def request(self, law: str, keys: list[bytes], now_ms: int) -> ForgetJob: ...
    async def find(self, request_id: str) -> ForgetStatus | None: ...


class ComplianceApi:
    """Handlers of `/v3/compliance`."""

    def __init__(
        self,
        forgetting: Forgets,
        schema: IdentifierSchema,
        settings: ComplianceSettings,
        clock: Callable[[], float],
    ) -> None:
        """clock: seconds since the epoch."""
        self._forgetting = forgetting
        self._schema = schema
        self._settings = settings
        self._clock = clock
        self._bodies = BodyRules(
            accepted=(JSON_TYPE,),
            missing=JSON_TYPE,
            inflated_bytes_max=settings.body_bytes_max,
            limit_name="body_bytes_max",
        )

    def routes(self) -> Iterator[Route]:
        """All routes of this API."""
        yield Route(
            "/v3/compliance/{law}/delete",
            {"POST": Operation(self.delete, "private")},
            body_bytes_max=self._settings.body_bytes_max,
            limit_name="body_bytes_max",
        )
        yield Route("/v3/compliance/{law}/status/{request_id}", {"GET": Operation(self.status, "private")})

    async def delete(self, request: Request) -> Answer:
        """202 with the id of the request; the identifiers are forgotten for whoever asks from now on."""
        law = _law(request)
        _, body = bodies.read(request, self._bodies)
        keys = parse_request(body, self._schema, self._settings.identifiers_per_request_max)
        job = await self._forgetting.request(law, keys, int(self._clock() * 1000))
        return json_answer(202, _shown(job, None))

    async def status(self, request: Request) -> Answer:
        """200 with the state of a request, 404."""
        law = _law(request)
        found = await self._forgetting.find(request.params["request_id"])
        if found is None or found.job.law != law:
            raise NotFound("Request not found.")
        return json_answer(200, _shown(found.job, found.problem))


def _law(request: Request) -> str:
    law = request.params["law"]
    if law not in LAWS:
        raise NotFound(f"There is no such law here; known: {', '.join(LAWS)}.")
    return law


def _shown(job: ForgetJob, problem: str | None) -> dict[str, Any]:
    is_completed = job.state == "completed"
    return {
        "request_id": job.id,
        "status": "COMPLETED" if is_completed else "IN_PROGRESS",
        "reason": problem,
        "received_at": job.received_ms / 1000,
        "completed_at": None if job.completed_ms is None else job.completed_ms / 1000,
    }
