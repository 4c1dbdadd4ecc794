"""A client of a cluster that writes keys of its own, and remembers what was acknowledged by how many servers."""

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tests.cluster.cluster import Cluster
from tests.cluster.nodes import Node, wait_for
from tests.cluster.resp import Connection, Reply, ReplyError
from tests.cluster.slots import key_slot

# Answers after which the same command is right in a moment.
PASSING = {"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS"}
WRITE_SECONDS_MAX = 30.0
AGAIN_SECONDS = 0.02


def write(cluster: Cluster, keys: Iterable[str], copies: int, milliseconds: int = 5_000) -> dict[str, int]:
    """SET every one of `keys` to its own name at the master of its slot, with WAIT for `copies`, `milliseconds` long.

    Returns for each key how many replicas have acknowledged it; all keys must belong to one master. One that has just
    been elected, and has no replica yet, is waited for.
    """
    names = list(keys)
    with cluster.connection_for(names[0]) as connection:
        wait_for(lambda: _refusal(connection, names[0]), WRITE_SECONDS_MAX, cluster.log_text)
        for name in names[1:]:
            connection.call("SET", name, name)
        acknowledged = connection.number("WAIT", copies, milliseconds)
    return dict.fromkeys(names, acknowledged)


class Writer:
    """Writes key after key, each in a slot of its own, and follows the cluster wherever the slots go."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._name = name
        self._nodes = {node.address: node for node in cluster.nodes}
        self._stopping = threading.Event()
        self.written: list[str] = []
        """The keys whose writing was answered with OK."""

    def run(self) -> None:
        """Write until `stop`."""
        with ExitStack() as stack:
            connections = {node: stack.enter_context(node.connection()) for node in self._nodes.values()}
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                key = f"{self._name}-{number}"
                self._set(key, connections)
                self.written.append(key)

    def stop(self) -> None:
        self._stopping.set()

    def _set(self, key: str, connections: dict[Node, Connection]) -> None:
        node, asking = next(iter(connections)), False
        deadline = time.monotonic() + WRITE_SECONDS_MAX
        while (reply := self._try(key, connections[node], asking)) != b"OK":
            assert time.monotonic() < deadline, f"{key} (slot {key_slot(key)}): {reply!r}"
            assert isinstance(reply, ReplyError), f"{key}: {reply!r}"
            asking = reply.kind == "ASK"
            if reply.kind in {"MOVED", "ASK"}:
                node = self._nodes[str(reply).rpartition(" ")[2]]
            else:
                assert reply.kind in PASSING, f"{key}: {reply}"
                time.sleep(AGAIN_SECONDS)

    def _try(self, key: str, connection: Connection, asking: bool) -> Reply | ReplyError:
        return connection.pipeline([*([("ASKING",)] if asking else []), ("SET", key, key)])[-1]


def _refusal(connection: Connection, key: str) -> str | None:
    """SET `key`; why it is refused for the moment."""
    try:
        connection.call("SET", key, key)
    except ReplyError as refusal:
        if refusal.kind not in PASSING:
            raise
        return str(refusal)
    return None


@contextmanager
def writing(writers: Iterable[Writer]) -> Iterator[None]:
    """All of `writers` write while the body runs; one that fails fails the body."""
    failures: list[BaseException] = []

    def run(writer: Writer) -> None:
        try:
            writer.run()
        except BaseException as failure:  # noqa: BLE001  it is raised where the test can see it
            failures.append(failure)

    running = list(writers)
    threads = [threading.Thread(target=run, args=(writer,)) for writer in running]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for writer in running:
            writer.stop()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
