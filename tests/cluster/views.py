"""What the servers of a cluster believe of each other, and whether that amounts to a whole cluster.

Every function that looks for something amiss returns one sentence about it, or None.
"""

from collections.abc import Iterable, Mapping, Sequence

from tests.cluster.nodes import Node, View
from tests.cluster.resp import ReplyError
from tests.cluster.slots import SLOTS

UNSOUND = {"fail", "fail?", "handshake", "noaddr"}


def own_views(nodes: Iterable[Node]) -> dict[Node, View]:
    """What each server that answers says of itself; one that dies meanwhile is left out."""
    views = {}
    for node in nodes:
        try:
            if node.answers:
                views[node] = node.views()[node.node_id]
        except (OSError, ReplyError):
            continue
    return views


def owner(views: Mapping[Node, View], slot: int) -> Node | None:
    """Who owns `slot`: of those that say so the one with the latest configuration, as the servers decide it too."""
    claims = [(view.epoch, node) for node, view in views.items() if view.is_master and view.owns(slot)]
    return max(claims, key=lambda claim: claim[0])[1] if claims else None


def why_not_whole(nodes: Sequence[Node], replicas_each: int) -> str | None:
    """Every server runs and knows all others as sound, all agree who has which part, every slot is served, and every
    replica has what its master had when this was asked."""
    try:
        return (
            _first(_why_not_sound(node, nodes) for node in nodes)
            or _why_not_agreed(nodes)
            or _why_not_replicated(nodes, replicas_each)
        )
    except (OSError, ReplyError) as error:
        return str(error)


def why_not_known(moved: Iterable[int], target: Node, nodes: Iterable[Node]) -> str | None:
    """Every server that answers knows that `target` owns the slots `moved`."""
    slots = list(moved)
    for node in nodes:
        view = node.views()[target.node_id] if node.answers else None
        if view is not None and not all(view.owns(slot) for slot in slots):
            return f"{node} does not know yet that {target} has all of {len(slots)} slots"
    return None


def _why_not_sound(node: Node, nodes: Sequence[Node]) -> str | None:
    if not node.answers:
        return f"{node} does not run, or is frozen"
    views = node.views()
    unsound = [view.node_id for view in views.values() if view.flags & UNSOUND]
    if unsound or views.keys() != {other.node_id for other in nodes}:
        return f"{node} sees {len(views)} servers, of which unsound: {unsound}"
    with node.connection() as connection:
        lines = connection.text("CLUSTER", "INFO").split()
    if not {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}"} <= set(lines):
        return f"{node} says {lines[:3]}"
    return None


def _why_not_agreed(nodes: Sequence[Node]) -> str | None:
    """A master that was frozen believes for a moment that it still is one, and nothing looks amiss to it."""
    parts = [{name: (view.master_id, view.slots) for name, view in node.views().items()} for node in nodes]
    different = next((node for node, part in zip(nodes, parts, strict=True) if part != parts[0]), None)
    return None if different is None else f"{different} and {nodes[0]} disagree who has which part"


def _why_not_replicated(nodes: Sequence[Node], replicas_each: int) -> str | None:
    views = own_views(nodes)
    offsets: dict[str, int] = {}
    for master in (node for node, view in views.items() if view.is_master):
        said = master.info("replication")
        offsets[master.node_id] = int(said["master_repl_offset"])
        online = [value for name, value in said.items() if name.startswith("slave") and "state=online" in value]
        if len(online) != replicas_each:
            return f"{master} has {len(online)} replicas online instead of {replicas_each}"
    return _first(
        _why_not_up_to_date(node, offsets.get(view.master_id)) for node, view in views.items() if view.master_id
    )


def _why_not_up_to_date(replica: Node, offset: int | None) -> str | None:
    """offset: what the master had; None if what the replica calls its master is none."""
    said = replica.info("replication")
    if offset is None or said["master_link_status"] != "up" or int(said["slave_repl_offset"]) < offset:
        return f"{replica} is at {said['slave_repl_offset']} of {offset}, its link {said['master_link_status']}"
    return None


def _first(complaints: Iterable[str | None]) -> str | None:
    return next((complaint for complaint in complaints if complaint is not None), None)
