"""A real cluster of Valkey or Redis on loopback, started by the test itself, and the faults that it meets.

Invariants:
1. The servers end with the test: `close` kills them, and a watchdog does if this process dies without a word.
2. A cluster starts formed: every server finds the others in the `nodes.conf` that is written for it, so the only wait
   is for the two seconds that a master of either product refuses to serve after its start.
3. A server is addressed as what it is now (`master_of`, `replicas_of`), and asked itself: failovers change the answer.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.cluster import security, slots, views
from tests.cluster.engines import Engine, find_engine
from tests.cluster.nodes import Node, Settings, wait_for
from tests.cluster.ports import PortBlock
from tests.cluster.resp import Connection
from tests.cluster.slots import SLOTS, key_slot

WHOLE_SECONDS_MAX = 60.0
"""Turns a hang into a failure; a failover takes some 3 s, a whole cluster that comes back some 3 s."""

# What keeps every acknowledged write (with WAIT), and what makes nine servers on a small machine light.
SETTINGS: Settings = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "always",
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": 1500,
    "cluster-require-full-coverage": "no",
    "cluster-allow-replica-migration": "no",
    "cluster-announce-ip": "127.0.0.1",
    "min-replicas-to-write": 1,
    "maxmemory-policy": "noeviction",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": 0,
    "repl-backlog-size": "1mb",
}


class Cluster:
    """`masters` masters with `replicas` replicas each, below `folder`; started and whole inside its `with`.

    settings: laid over SETTINGS, for every server. tls: over TLS alone, with certificates of its own authority.
    password: asked of everybody, for `user` (default: the user that needs no name). engine: default `find_engine()`.
    """

    def __init__(
        self,
        folder: Path,
        masters: int = 3,
        replicas: int = 2,
        settings: Settings | None = None,
        *,
        tls: bool = False,
        user: str | None = None,
        password: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        found = engine or find_engine()
        assert found is not None, "no server of Valkey or Redis is here"
        self.engine = found
        self.security = security.make(folder, tls=tls, user=user, password=password)
        self.replicas_each = replicas
        self._settings = {**SETTINGS, **self.security.settings, **(settings or {})}
        self._block = PortBlock.claim()
        ports = self._block.ports
        # Servers 0 to masters - 1 begin as masters; the others take turns as their replicas.
        self.nodes = [
            Node(folder / f"server-{number}", f"{number + 1:040x}", ports[number], found, self.security.credentials)
            for number in range(masters * (1 + replicas))
        ]
        self._buses = {node: ports[-1 - number] for number, node in enumerate(self.nodes)}
        self._masters = masters
        self._watchdog: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all servers for the first time, and wait until the cluster is whole."""
        for node in self.nodes:
            node.configure({**self._settings, **self._own_settings(node)})
            (node.folder / "nodes.conf").write_text(self._membership(node), encoding="ascii")
        # It leads the group of the servers. When this process ends, so does its input, and with that all of them. (If
        # one is frozen then, the kernel sends the group a SIGHUP, which must not end the watchdog first.)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", "trap '' HUP; read -r nothing; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0
        )
        self.start_all()
        self.wait_whole()

    def close(self) -> None:
        """End every server, whatever state the test left it in."""
        for node in self.nodes:
            if node.is_running:
                node.kill()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None
        self._block.close()

    @property
    def addresses(self) -> list[str]:
        """`HOST:PORT` of every server, dead ones included."""
        return [node.address for node in self.nodes]

    @property
    def answering(self) -> list[Node]:
        """The servers that neither are killed nor frozen."""
        return [node for node in self.nodes if node.answers]

    def start_node(self, node: Node) -> None:
        """Start a killed server again, with the data and the identity that it had."""
        assert self._watchdog is not None
        node.launch(self._watchdog.pid)
        node.wait_answering()

    def kill_all(self) -> None:
        """SIGKILL to every server."""
        for node in self.nodes:
            if node.is_running:
                node.kill()

    def start_all(self) -> None:
        """Start whatever does not run; the cluster is whole a while later."""
        assert self._watchdog is not None
        starting = [node for node in self.nodes if not node.is_running]
        for node in starting:
            node.launch(self._watchdog.pid)
        for node in starting:
            node.wait_answering()

    def masters(self) -> list[Node]:
        """The servers that own slots now, as `master_of` has it, in the order of `nodes`."""
        said = views.own_views(self.nodes)
        owners = {views.owner(said, slot) for slot in {part.start for view in said.values() for part in view.slots}}
        return [node for node in self.nodes if node in owners]

    def master_of(self, slot: int) -> Node:
        """The server that owns `slot` now: of those that answer and say so the one with the latest configuration.

        Raises LookupError: none of them says so, as between the end of a master and the election of the next.
        """
        owner = views.owner(views.own_views(self.nodes), slot)
        if owner is None:
            raise LookupError(f"of {self.answering} nobody owns slot {slot}")
        return owner

    def replicas_of(self, master: Node) -> list[Node]:
        """The servers that run, frozen or not, and are replicas of `master`, as far as it (or else another) knows."""
        said = (master if master.answers else self.answering[0]).views()
        replicas = {view.node_id for view in said.values() if view.master_id == master.node_id}
        return [node for node in self.nodes if node.node_id in replicas and node.is_running]

    def wait_for_failover(self, slot: int, master: Node) -> Node:
        """Wait until another server than `master` owns `slot` and serves it; returns that one."""

        def complaint() -> str | None:
            owner = views.owner(views.own_views(self.nodes), slot)
            if owner is None or owner is master:
                return f"nobody has taken slot {slot} over from {master}"
            with owner.connection() as connection:
                serves = "cluster_state:ok" in connection.text("CLUSTER", "INFO")
            return None if serves else f"{owner} has slot {slot}, and does not serve it"

        self._wait_for(complaint)
        return self.master_of(slot)

    def wait_whole(self) -> None:
        """Wait until every server runs, knows all others as sound, and every replica has what its master has."""
        self._wait_for(lambda: views.why_not_whole(self.nodes, self.replicas_each))

    def move_slots(self, moving: Sequence[int], target: Node) -> int:
        """Move `moving` with their keys to the master `target`, live; returns how many keys moved.

        Done when every server that answers knows the new owner.
        """
        moved = 0
        for source in self.masters():
            view = source.views()[source.node_id]
            theirs = [slot for slot in moving if view.owns(slot)]
            if theirs and source is not target:
                moved += slots.move(theirs, source, target, self.masters(), self.security.credentials)
        self._wait_for(lambda: views.why_not_known(moving, target, self.nodes))
        return moved

    @contextmanager
    def connection_for(self, key: str | bytes) -> Iterator[Connection]:
        """A connection to the server that owns the slot of `key` now."""
        with self.master_of(key_slot(key)).connection() as connection:
            yield connection

    def flush(self) -> None:
        """Remove every key and every function, and wait until replicas have heard of it."""
        for master in self.masters():
            with master.connection() as connection:
                connection.call("FLUSHALL", "SYNC")
                connection.call("FUNCTION", "FLUSH", "SYNC")
        self.wait_whole()

    def cpu_seconds(self) -> float:
        """Processor time of all running servers."""
        return sum(node.cpu_seconds() for node in self.nodes if node.is_running)

    def log_text(self) -> str:
        """What every server logged last."""
        return "\n\n".join(node.log_text() for node in self.nodes)

    def _wait_for(self, complaint: Callable[[], str | None]) -> None:
        wait_for(complaint, WHOLE_SECONDS_MAX, self.log_text)

    def _own_settings(self, node: Node) -> Settings:
        """What is different for every server."""
        ports: Settings = {"port": node.port}
        if self.security.credentials.tls is not None:
            ports = {"port": 0, "tls-port": node.port}
        return {**ports, "cluster-port": self._buses[node], "dir": str(node.folder)}

    def _membership(self, me: Node) -> str:
        """The `nodes.conf` from which the server `me` knows all others, as each writes one for its own next start."""
        bounds = [SLOTS * number // self._masters for number in range(self._masters + 1)]
        lines = []
        for number, node in enumerate(self.nodes):
            of = number % self._masters
            is_master = number < self._masters
            role = f"master - 0 0 {of + 1}" if is_master else f"slave {self.nodes[of].node_id} 0 0 {of + 1}"
            owned = f" {bounds[of]}-{bounds[of + 1] - 1}" if is_master else ""
            itself = "myself," if node is me else ""
            lines.append(f"{node.node_id} {node.address}@{self._buses[node]} {itself}{role} connected{owned}\n")
        return "".join([*lines, f"vars currentEpoch {self._masters} lastVoteEpoch 0\n"])
