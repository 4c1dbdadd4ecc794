"""Whether the service takes requests now, and if not, why.

Owns one small state that the service sets and `/readyz` and the edge read. Never changes it by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from segmentd.domain.refusals import Overloaded, ShuttingDown, Unavailable


class Readiness:
    """starting → ready → draining; beside that, writes may have stopped for good."""

    def __init__(
        self,
        retry_after_seconds: int,
        failure: Callable[[], str | None] = lambda: None,
        away: Callable[[], str | None] = lambda: None,
    ) -> None:
        """failure: asked at each look; why nothing can be written any more, or None (`MembershipStore.failure`).

        away: likewise; why nothing can be answered now. It is no `refusal`: each request finds out by itself.
        """
        self._retry_after_seconds = retry_after_seconds
        self._failure = failure
        self._away = away
        self._ready = False
        self._draining = False

    def ready(self) -> None:
        """Recovered and accepting."""
        self._ready = True

    def drain(self) -> None:
        """The service finishes what it took; new requests are refused."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def refusal(self) -> Unavailable | None:
        """What to answer to a new request instead of serving it, or None."""
        if self._draining:
            return ShuttingDown("The service is shutting down.", self._retry_after_seconds)
        if not self._ready:
            return Overloaded("The service is starting.", self._retry_after_seconds)
        return None

    def reason(self) -> str | None:
        """Why the service should get no traffic, or None: it is ready."""
        refusal = self.refusal()
        if refusal is not None:
            return refusal.message
        failure = self._failure()
        return self._away() if failure is None else f"Nothing can be written: {failure}"
