"""Whether a cluster's settings can keep what 202 promises. Read before anything is written.

What a cluster is set up with is told from what happens to be broken now: a node has to start while a server is down,
because its outbox may be what the next primary lacks.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from segmentd.cluster.layout import Layout
from segmentd.cluster.link import Address, LinkDownError
from segmentd.cluster.servers import Servers

ALLOW: Final = "[store] accept_weaker_promises = true"
_READ: Final = (b"appendonly", b"appendfsync", b"maxmemory", b"maxmemory-policy", b"min-replicas-to-write")


class WeakClusterError(Exception):
    """The cluster may lose what it has acknowledged; the message names each server and setting."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        listed = "\n  ".join(problems)
        super().__init__(
            f"the cluster cannot keep the promise that nothing acknowledged is lost:\n  {listed}\n"
            f"Change these settings, or accept it with {ALLOW}."
        )


class Checked(NamedTuple):
    """What was found, one line each. weak: the cluster cannot keep the promise. passing: it can, but look after it."""

    weak: list[str]
    passing: list[str]
    may_settle: bool = False
    """Nothing is wrong but the number of replicas, which a server that has just died makes too small for a moment."""


async def check(servers: Servers, replicas_min: int) -> Checked:
    """Look at every server that is not known to be dead."""
    layout = servers.layout
    checked = replicas_checked(layout, replicas_min)
    replicas_short = len(checked.weak)
    for address in sorted(layout.addresses()):
        try:
            (answer,) = await servers.link(address, "layout").call([(b"CONFIG GET", *_READ)])
        except LinkDownError as error:
            checked.passing.append(f"{error}; its settings could not be read")
            continue
        if isinstance(answer, Exception):
            checked.weak.append(f"{address}: its settings cannot be read: {answer}")
        else:
            checked.weak.extend(setting_problems(address, _texts(answer), replicas_min))
    return checked._replace(may_settle=replicas_min > 0 and 0 < len(checked.weak) == replicas_short)


def replicas_checked(layout: Layout, replicas_min: int) -> Checked:
    """Primaries need the replicas that must acknowledge, and one more where it is one: else writing ends with it."""
    wanted = max(replicas_min, min(replicas_min + 1, 2))
    short, missing = [], 0
    for node_id, address in sorted(layout.primaries.values()):
        count = len(layout.replicas.get(node_id, ()))
        if count < wanted:
            missing += wanted - count
            short.append(
                f"{address}: has {count} replicas; {wanted} are needed with [store] replicas_acknowledged_min ="
                f" {replicas_min}, or writing stops when one of them fails"
            )
    # A server that comes back is a replica of some primary again, whose it was or who has replaced it; and those of one
    # that was just replaced follow the new one in a moment.
    following = sum(len(those) for node_id, those in layout.replicas.items() if node_id not in layout.primaries)
    is_passing = missing <= len(layout.absent) + following
    checked = Checked([] if is_passing else short, short if is_passing else [])
    if not replicas_min:
        checked.weak.append("[store] replicas_acknowledged_min = 0: what a primary alone has is lost with it")
    return checked


def setting_problems(address: Address, settings: Mapping[str, str], replicas_min: int) -> list[str]:
    """What one server's own settings put at risk."""
    problems = []
    if settings.get("appendonly") != "yes":
        problems.append(f"{address}: appendonly = {settings.get('appendonly')}; must be yes")
    if settings.get("appendfsync") != "always":
        problems.append(f"{address}: appendfsync = {settings.get('appendfsync')}; must be always")
    if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy") != "noeviction":
        problems.append(f"{address}: maxmemory-policy = {settings.get('maxmemory-policy')}; must be noeviction")
    if replicas_min and int(settings.get("min-replicas-to-write", "0")) < 1:
        problems.append(
            f"{address}: min-replicas-to-write = 0; must be 1 or more, or a primary that is cut off writes on"
        )
    return problems


def _texts(answer: object) -> dict[str, str]:
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)  # type: ignore[index]
    return {bytes(name).decode(): bytes(value).decode() for name, value in pairs}
