"""A follower: the process that `segmentd serve` starts beside itself for each of `[server] followers`.

    python -m segmentd.follower CHANNEL LISTENER VISIBLE TALLY      (numbers of inherited descriptors)

Reads the owner's store and answers queries on the owner's port. Owns its wiring and its end. Never writes anything.

Invariants:
1. When the owner is gone, the channel ends, and the follower with it, whatever is under way: what it could still show
   would stand beside the answers of the next owner.
2. A store that cannot be read ends the follower; the owner starts another one.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio

from segmentd import lateness, logs
from segmentd.followers.channel import Channel, ChannelEndedError
from segmentd.followers.edge import FollowingGraphQL, build_edge
from segmentd.followers.messages import Begin, Handed, Leave, Ready, Reopen, Reopened, Scrape, Scraped
from segmentd.followers.serving import FollowerServer
from segmentd.followers.tally import Tally
from segmentd.http.auth import Keyring
from segmentd.http.collecting import freeze_what_is_loaded
from segmentd.identifiers import identifier_schema
from segmentd.keyfile import KeyFileError, path_in
from segmentd.processmetrics import StatsCollector, failed_hand_overs, families_of
from segmentd.runtime.following import FollowingStore
from segmentd.settings import Settings
from segmentd.storage.errors import StorageError
from segmentd.storage.visible import Visible
from segmentd.telemetry import Telemetry
from segmentd.tracedparts import open_traces

# Often enough that an idle follower never has much to fold before an answer; next to nothing while nothing comes.
_CATCH_UP_SECONDS: Final = 0.02
_FAILED: Final = 1
_COUNTERS: Final = frozenset({"folded_records", "folded_changes", "reloads"})

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Descriptors(NamedTuple):
    """What the owner has passed on."""

    channel: int
    listener: int
    visible: int
    tally: int


class FollowerProcess:
    """The whole process."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._channel = Channel(socket.socket(fileno=descriptors.channel))

    async def run(self) -> None:
        """Until the owner says to leave. Raises StorageError, KeyFileError, ChannelEndedError, OSError."""
        begin = await self._begin()
        settings = begin.settings
        logs.configure(settings.log.format, settings.log.level)
        structlog.contextvars.bind_contextvars(process=begin.name)
        self._telemetry = Telemetry()
        self._store = await trio.to_thread.run_sync(self._opened, settings)
        self._telemetry.registry.register(StatsCollector(self._store.stats, _COUNTERS))
        self._server = self._built(begin)
        freeze_what_is_loaded()
        try:
            await self._serve()
        finally:
            self._store.close()
        await self._traces.aclose()

    async def _begin(self) -> Begin:
        message, _ = await self._channel.receive()
        if not isinstance(message, Begin):
            raise ChannelEndedError("the owner did not say who this is")
        return message

    def _opened(self, settings: Settings) -> FollowingStore:
        visible = Visible.of(self._descriptors.visible)
        store = FollowingStore(Path(settings.storage.path), visible, storage=settings.storage, limits=settings.limits)
        store.open()
        return store

    def _built(self, begin: Begin) -> FollowerServer:
        settings, store = begin.settings, self._store
        schema = identifier_schema(settings, store.kind_numbers(list(settings.identifiers)))
        self._traces = open_traces(settings.traces, begin.name, self._telemetry)
        engine = self._traces.engine(store, store, schema, settings.graphql)
        self._telemetry.watch_plans(lambda: engine.answered_by_plans)
        self._keyring = Keyring(settings.keys, path_in(Path(settings.storage.path)), settings.rates)
        graphql = FollowingGraphQL(engine, store, settings.limits, self._fail)
        return FollowerServer(
            build_edge(settings, graphql, self._keyring, self._telemetry, self._traces.tracing),
            settings.server,
            socket.socket(fileno=self._descriptors.listener),
            self._channel,
            Tally(self._descriptors.tally, begin.slot),
            begin.slot,
            failed_hand_overs(self._telemetry.registry).inc,
        )

    async def _serve(self) -> None:
        async with trio.open_nursery() as background:
            background.start_soon(self._keyring.watch)
            background.start_soon(lateness.sample, self._telemetry.loop_late)
            background.start_soon(self._catch_up)
            async with trio.open_nursery() as serving:
                await serving.start(self._server.run)
                background.start_soon(self._hear)
                await self._channel.send(Ready())
                log.info("following", pid=os.getpid())
            await self._channel.send(Scraped(0, families_of(self._telemetry.registry)))
            background.cancel_scope.cancel()

    async def _catch_up(self) -> None:
        while True:
            await trio.sleep(_CATCH_UP_SECONDS)
            try:
                self._store.catch_up()
            except StorageError as error:
                self._fail(error)

    async def _hear(self) -> None:
        """Do what the owner says; end with it."""
        while True:
            try:
                message, descriptor = await self._channel.receive()
            except ChannelEndedError:
                # At once: tasks may be shielded for as long as a slow client may take.
                log.error("the owner is gone")
                os._exit(_FAILED)
            match message:
                case Handed() if descriptor is not None:
                    self._server.take(message, descriptor)
                case Handed():
                    self._server.lost()
                case Leave():
                    self._server.leave(stopping=message.stopping)
                case Reopen():
                    self._reopen(message.generation)
                    await self._channel.send(Reopened(message.generation))
                case Scrape():
                    await self._channel.send(Scraped(message.number, families_of(self._telemetry.registry)))
                case _:
                    log.error("the owner said what only followers say", message=repr(message)[:200])

    def _reopen(self, generation: str) -> None:
        try:
            self._store.reopen(generation)
        except StorageError as error:
            self._fail(error)

    def _fail(self, error: StorageError) -> None:
        """Nothing more may be shown. What is under way is asked again by its client, of another process."""
        log.critical("the store cannot be followed", reason=str(error))
        os._exit(_FAILED)


def main(arguments: list[str]) -> int:
    """Follow until told to leave; returns the exit code. arguments: the numbers of the descriptors."""
    # What ends a whole group of processes means the owner, which tells its followers in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    descriptors = Descriptors(*map(int, arguments))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    exit_code = 0
    try:
        trio.run(FollowerProcess(descriptors).run)
    except* ChannelEndedError:
        exit_code = _FAILED
    except* (StorageError, KeyFileError, OSError) as group:
        log.critical("the follower cannot go on", reason=str(group.exceptions[0]))
        exit_code = _FAILED
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
