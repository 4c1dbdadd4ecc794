"""Loads the world into a peer's Redis directly: the state that the peer's own events would lead to, only sooner.

Owns the bulk load and the rewriting of Redis's log. Never used while something is measured.
"""

import time

from redis import Redis

from bench.processes import BenchError
from bench.world import AUDIENCE_IDS, IDENTIFIER_NAME, MEMBERSHIPS_PER_IDENTIFIER, member, memberships_of

IDENTIFIERS_PER_PIPELINE = 5_000
REWRITE_SECONDS_MAX = 600.0


def load(socket: str, memberships: int) -> None:
    """HSET for every identifier, in pipelines."""
    redis = Redis(unix_socket_path=socket)
    identifiers = memberships // MEMBERSHIPS_PER_IDENTIFIER
    for first in range(0, identifiers, IDENTIFIERS_PER_PIPELINE):
        pipeline = redis.pipeline(transaction=False)
        for number in range(first, min(first + IDENTIFIERS_PER_PIPELINE, identifiers)):
            fields = {AUDIENCE_IDS[audience]: v for audience, v in memberships_of(number)}
            pipeline.hset(f"{IDENTIFIER_NAME}:{member(number)}", mapping=fields)  # type: ignore[arg-type]
        pipeline.execute()
    redis.close()


def rewrite_log(socket: str) -> None:
    """Have Redis compact its log now, so that it does not start doing so in the middle of a measurement."""
    redis = Redis(unix_socket_path=socket)
    deadline = time.monotonic() + REWRITE_SECONDS_MAX
    _wait_for_rewrite(redis, deadline)
    redis.bgrewriteaof()
    _wait_for_rewrite(redis, deadline)
    redis.close()


def _wait_for_rewrite(redis: Redis, deadline: float) -> None:
    while time.monotonic() < deadline:
        state = redis.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        time.sleep(0.1)
    raise BenchError(f"Redis did not rewrite its log within {REWRITE_SECONDS_MAX:.0f} s")
