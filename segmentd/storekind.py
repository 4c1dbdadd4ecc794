"""What the service needs of a kind of store, and what it gives to whoever makes one.

A kind is everything that is made differently because it is this store and not another one: the store itself, segments,
lists, notes, how queries read, what has to run. `service.py` knows no more of it than is said here, and runs it:

    kind = await open_kind(making)      while nobody is answered yet but for health
    await kind.recover()                in the background of the starting server
    kind.run, kind.run_catalog          as tasks, in nurseries that end in the reverse order
    kind.watch                          as a task that is cancelled when the server stops
    kind.hurry()                        the server is told to stop
    kind.close_catalog()                all requests are answered; `run_catalog` ends when what it took is done
    kind.close()                        `run` ends when what it took is done
    kind.close_files()                  everything has ended
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from socket import socket
from typing import NamedTuple, Protocol

import trio

from segmentd.audiencemetrics import KnowsAudiences
from segmentd.domain.identifiers import IdentifierSchema
from segmentd.graphql.engine import GraphQLEngine
from segmentd.graphql.gathering import AwaitedReads
from segmentd.http.auth import KeySource
from segmentd.http.edge import Published
from segmentd.http.elsewhere import Elsewhere
from segmentd.http.segments import SegmentCatalog
from segmentd.runtime.clusterhealth import SeesCluster
from segmentd.runtime.forgetnotes import ForgetNotes
from segmentd.runtime.forgetting import ForgetsAndScrubs
from segmentd.runtime.importmirror import JobMirror
from segmentd.runtime.interludes import Interludes
from segmentd.runtime.liststore import ListStore
from segmentd.runtime.observing import RememberingObserver
from segmentd.runtime.seam import ImportHistory, MembershipStore, MembersReader
from segmentd.settings import Settings
from segmentd.storage.folder import DataFolder
from segmentd.telemetry import Telemetry
from segmentd.tracedparts import Traces


class StartError(Exception):
    """The service cannot start; the message names the reason."""


class Making(NamedTuple):
    """What a kind is made of."""

    settings: Settings
    folder: DataFolder
    """Locked. Lists and jobs of imports are there whatever the kind."""
    listener: socket
    """Where clients come in."""
    telemetry: Telemetry
    traces: Traces
    observed: RememberingObserver
    """To be told of commits."""
    nursery: trio.Nursery
    """The outermost one: for tasks that have to run before `recover`, and end by `close`."""


class Queries(NamedTuple):
    """How queries are answered. awaited: None if the engine has everything in this process."""

    engine: GraphQLEngine
    awaited: AwaitedReads | None = None


class StoreKind(Protocol):
    """An open store, and what belongs to it."""

    @property
    def schema(self) -> IdentifierSchema: ...
    @property
    def store(self) -> MembershipStore: ...
    @property
    def forgets(self) -> ForgetsAndScrubs: ...
    @property
    def catalog(self) -> SegmentCatalog: ...
    @property
    def members(self) -> MembersReader: ...
    @property
    def lists(self) -> ListStore: ...
    @property
    def notes(self) -> ForgetNotes: ...
    @property
    def mirror(self) -> JobMirror | None:
        """Of the import jobs of all nodes; None where there is one node."""

    @property
    def keys(self) -> KeySource | None:
        """Where stored keys come from; None: from the key file."""

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Other processes that serve the same port."""

    @property
    def published(self) -> Published | None:
        """What those may show already."""

    @property
    def restart(self) -> Callable[[], Awaitable[None]] | None:
        """Replaces what can be replaced while serving."""

    @property
    def cluster(self) -> SeesCluster | None:
        """How the cluster is doing; None where there is none."""

    def queries(self, imports: ImportHistory) -> Queries:
        """How queries are answered; called once."""

    @property
    def interludes(self) -> Interludes:
        """Where its long work lets others have their turn."""

    @property
    def fresh(self) -> KnowsAudiences:
        """How fresh audiences are, for metrics."""

    async def sizes(self, audiences: Collection[str]) -> Mapping[str, int]:
        """Qualified members of these audiences now. Raises StoreUnavailable, Overloaded."""

    async def recover(self) -> None:
        """Load what has to be loaded before anybody is answered. Raises StorageError, StartError."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...
    async def run_catalog(self) -> None: ...
    async def watch(self) -> None: ...
    def hurry(self) -> None: ...
    def close_catalog(self) -> None: ...
    def close(self) -> None: ...
    def close_files(self) -> None: ...
