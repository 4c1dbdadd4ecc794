"""What operators and machines ask: is it alive, is it ready, how is it doing, what can it do.

None of these asks for a key: orchestrators and Prometheus have none, and nothing here tells of keys, identifiers,
audiences or segments beyond their number. Who must not see the numbers is kept out by the network.
"""

from __future__ import annotations

import msgspec

from segmentd.http.elsewhere import Elsewhere
from segmentd.http.exchange import Answer, Request, json_answer
from segmentd.http.readiness import Readiness
from segmentd.runtime.clusterhealth import SeesCluster
from segmentd.telemetry import Telemetry


class OperationsApi:
    """Handlers of `/healthz`, `/readyz`, `/metrics`, `/openapi.json` and `/schema.graphql`."""

    def __init__(
        self,
        readiness: Readiness,
        telemetry: Telemetry,
        openapi: object,
        sdl: str,
        elsewhere: Elsewhere | None = None,
        cluster: SeesCluster | None = None,
    ) -> None:
        """sdl: the GraphQL schema in GraphQL's own language. elsewhere: followers, cluster: if there are any."""
        self._cluster = cluster
        self._elsewhere = elsewhere
        self._readiness = readiness
        self._telemetry = telemetry
        self._openapi = msgspec.json.encode(openapi)
        self._sdl = sdl.encode()

    async def healthz(self, _request: Request) -> Answer:
        """200 as long as the process answers at all."""
        return json_answer(200, {"status": "ok"})

    async def readyz(self, request: Request) -> Answer:
        """200 if the service is recovered and accepts writes, else 503 with the reason."""
        reason = self._readiness.reason()
        if reason is None:
            followers = {} if self._elsewhere is None else {"followers": self._elsewhere.status()}
            return json_answer(200, {"status": "ready", **followers, **self._partitions()})
        unready = {"status": 503, "request_id": request.request_id, "message": reason}
        return json_answer(503, unready, (("retry-after", "1"),))

    def _partitions(self) -> dict[str, object]:
        """A part of a cluster that fails over is no reason to take a node away: the rest is served."""
        if self._cluster is None:
            return {}
        report = self._cluster.report()
        return {"cluster": {"partitions": report.partitions, "away": report.partitions_away}}

    async def metrics(self, request: Request) -> Answer:
        """200 with all metrics, those of followers added, as Prometheus text or OpenMetrics."""
        if self._elsewhere is not None:
            await self._elsewhere.scrape()
        body, content_type = self._telemetry.render(request.headers.get("accept", ""))
        return Answer(200, body, (("content-type", content_type),))

    async def openapi(self, _request: Request) -> Answer:
        """200 with the OpenAPI document."""
        return Answer(200, self._openapi)

    async def schema(self, _request: Request) -> Answer:
        """200 with the GraphQL schema, as text that browsers show."""
        return Answer(200, self._sdl, (("content-type", "text/plain; charset=utf-8"),))
