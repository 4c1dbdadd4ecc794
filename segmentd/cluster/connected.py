"""A connection to the whole cluster: links, dispatchers and the registry, before anything is known of audiences.

Used by the service, and by the commands that look at a cluster or change it.
"""

import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

import msgpack
import structlog
import trio
from coredis.exceptions import RedisError

from segmentd.cluster.batches import Durability
from segmentd.cluster.dispatch import Dispatcher
from segmentd.cluster.keyspace import SLOTS, Keyspace
from segmentd.cluster.link import Address, Command, Link, LinkSettings
from segmentd.cluster.promises import Checked, WeakClusterError, check
from segmentd.cluster.registry import NONE, ConflictError, Entry, Registry
from segmentd.cluster.servers import Servers
from segmentd.domain.gate import SALT_BYTES
from segmentd.domain.refusals import StoreUnavailable
from segmentd.settings import RuntimeSettings, StoreSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FORMAT: Final = 1
_CONFIGURATION: Final = b"configuration"
_KINDS: Final = b"kinds"
_TRIES_MAX: Final = 20
_WAITING_LOG_SECONDS: Final = 5.0
_READS_A_BATCH: Final = 256


class ClusterUnusableError(Exception):
    """The cluster holds what this segmentd does not understand. The message says what."""


class Configuration(NamedTuple):
    """What was decided when the cluster was first used."""

    format: int
    partitions: int
    salt: bytes


class Connected:
    """Built before anything runs; `open` comes first, in a nursery that outlives whoever uses it."""

    def __init__(
        self,
        store: StoreSettings,
        runtime: RuntimeSettings,
        record: Callable[[Sequence[Entry]], Awaitable[None]],
    ) -> None:
        """record: see Registry."""
        self._store = store
        self.patience_seconds = store.acknowledge_seconds_max
        """How long whoever looks at the cluster tries."""
        self.servers = Servers(addresses_of(store), link_settings_of(store), look_seconds=store.layout_seconds)
        source = files("segmentd.cluster").joinpath("functions.lua").read_bytes()
        # Every server that owns a slot has the functions; one that does not, is given them when it says so.
        self._loading: Command = (b"FUNCTION LOAD", b"REPLACE", source)

        def dispatcher(use: str, durability: Durability | None, weight: int) -> Dispatcher:
            return Dispatcher(
                self.servers,
                use,
                durability=durability,
                batch_weight_max=weight,
                load=self._load,
                refresh=self._refresh,
                retry_after_seconds=runtime.retry_after_seconds,
            )

        durability = Durability(
            store.replicas_acknowledged_min, max(1, int(500 * store.answer_seconds_max)), self._mark
        )
        self.writes = dispatcher("write", durability, runtime.group_changes_max)
        self.reads = dispatcher("read", None, _READS_A_BATCH)
        self.registry = Registry(
            self.servers,
            self.reads,
            self.writes,
            record,
            poll_seconds=store.registry_seconds,
            patience_seconds=store.acknowledge_seconds_max,
        )
        self.keyspace = Keyspace(store.partitions)
        self.salt = b""

    async def open(self, nursery: trio.Nursery) -> None:
        """Find the cluster, however long it takes, and what it was set up with.

        Raises WeakClusterError, ClusterUnusableError.
        """
        await nursery.start(self.servers.run)
        await self._found()
        checked = await self._checked()
        if checked.weak and not self._store.accept_weaker_promises:
            raise WeakClusterError(checked.weak)
        for problem in checked.weak:
            log.warning("the cluster may lose what it has acknowledged", reason=problem)
        for problem in checked.passing:
            log.warning("a server of the cluster is away", reason=problem)
        nursery.start_soon(self.reads.run)
        nursery.start_soon(self.writes.run)
        configuration = await self._patiently(self._configuration)
        self.keyspace = Keyspace(configuration.partitions)
        self.salt = configuration.salt
        nursery.start_soon(self.registry.run)

    async def _checked(self) -> Checked:
        """What speaks against the cluster; one that has just lost a server gets the time to find that out."""
        patience = trio.current_time() + self._store.acknowledge_seconds_max / 2
        while True:
            checked = await check(self.servers, self._store.replicas_acknowledged_min)
            if not checked.may_settle or self._store.accept_weaker_promises or trio.current_time() >= patience:
                return checked
            await self.servers.look()
            await trio.sleep(self._store.layout_seconds)

    async def kind_numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The numbers of identifier names, given to those that have none. Raises StoreUnavailable."""
        for _ in range(_TRIES_MAX):
            rank, payload = self.registry.get(_KINDS) or (NONE, msgpack.packb([]))
            known: list[str] = msgpack.unpackb(payload)
            if missing := [name for name in names if name not in known]:
                try:
                    added = msgpack.packb([*known, *missing])
                    await self.registry.register([Entry(_KINDS, rank + 1, added, expected=rank)])
                except ConflictError:
                    continue
                known = [*known, *missing]
            return {name: known.index(name) for name in names}
        raise StoreUnavailable("Other nodes name identifiers all the time.", 1)

    async def known_kinds(self) -> list[str]:
        """Every identifier name that was ever used; its number is its place. Raises StoreUnavailable."""
        await self.registry.refresh()
        held = self.registry.get(_KINDS)
        return [] if held is None else msgpack.unpackb(held[1])

    async def take_salt(self, salt: bytes) -> None:
        """Go on with another store's; nodes know of it when they start. Raises StoreUnavailable, ConflictError."""
        configuration = Configuration(FORMAT, self.keyspace.partitions, salt)
        rank = self.registry.rank(_CONFIGURATION)
        await self.registry.register([Entry(_CONFIGURATION, rank + 1, msgpack.packb(configuration), expected=rank)])
        self.salt = salt

    async def _configuration(self) -> Configuration:
        await self.registry.refresh()
        if self.registry.rank(_CONFIGURATION) == NONE:
            chosen = Configuration(FORMAT, self._store.partitions, secrets.token_bytes(SALT_BYTES))
            try:
                await self.registry.register([Entry(_CONFIGURATION, 0, msgpack.packb(chosen), expected=NONE)])
            except ConflictError:
                log.info("another node has set the cluster up")
        held = self.registry.get(_CONFIGURATION)
        assert held is not None  # noqa: S101  # registered by one of us
        configuration = Configuration(*msgpack.unpackb(held[1]))
        if configuration.format > FORMAT:
            raise ClusterUnusableError(
                f"the cluster was written by a newer segmentd (format {configuration.format}; this one reads {FORMAT})"
            )
        return configuration

    async def _found(self) -> None:
        """Wait until every slot has an owner."""
        told = -_WAITING_LOG_SECONDS
        while len(self.servers.layout.owners) < SLOTS:
            if trio.current_time() - told >= _WAITING_LOG_SECONDS:
                told = trio.current_time()
                asked = ", ".join(self._store.addresses)
                log.info(
                    "waiting for the cluster",
                    asked=asked,
                    slots=len(self.servers.layout.owners),
                    of=SLOTS,
                    problems=self.servers.problems(),
                )
            await self.servers.look()

    async def _patiently(self, act: Callable[[], Awaitable[Configuration]]) -> Configuration:
        while True:
            try:
                return await act()
            except StoreUnavailable as refusal:
                log.warning("waiting for the cluster", reason=refusal.message)

    async def _load(self, link: Link) -> None:
        (answer,) = await link.call([self._loading])
        if isinstance(answer, RedisError):
            log.error("a server does not take the functions", server=str(link.address), reason=str(answer))

    async def _refresh(self) -> None:
        await self.registry.refresh()

    def _mark(self, slot: int) -> Command:
        return (b"SET", self.keyspace.mark(slot), b"1")


def addresses_of(store: StoreSettings) -> list[Address]:
    """The configured servers."""
    return [Address(*place) for place in store.hosts_and_ports]


def link_settings_of(store: StoreSettings) -> LinkSettings:
    """How to connect. Raises OSError, ssl.SSLError where a certificate cannot be read."""
    tls = None
    if store.tls:
        tls = ssl.create_default_context(cafile=store.tls_ca_file or None)
        if store.tls_certificate_file:
            tls.load_cert_chain(store.tls_certificate_file, store.tls_key_file or None)
    return LinkSettings(
        store.user or None, store.password or None, tls, store.connect_seconds_max, store.answer_seconds_max
    )
