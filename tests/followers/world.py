"""An owner in this process and followers beside it, with a look at both wherever a test wants one."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from segmentd.runtime.catalog import Catalog
from segmentd.settings import LimitsSettings, RuntimeSettings, StorageSettings
from segmentd.storage.checkpoint import fold
from segmentd.storage.visible import Visible
from tests.runtime.world import HandDrivenStore, Unobserved, data_folder
from tests.sources import ROOT

KEYS = [b"\0" + name.encode() for name in ("ann", "bob", "cyd")]
AUDIENCES = ["red", "green"]
SEGMENT_IDS = ["s", "t"]

Seen = tuple[dict[tuple[bytes, str], int], dict[str, tuple[int, str]]]
"""(key, audience) → v, and segment id → (revision, audience)."""


class FollowerError(Exception):
    """The follower had a StorageError."""


class Follower:
    """A follower's store in a child process."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.followers.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.pid = self._child.pid

    def ask(self, name: str, *arguments: Any) -> Any:
        """Raises FollowerError."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        if "error" in answer:
            raise FollowerError(answer["error"])
        return answer["answer"]

    def open(self, path: Path, page: int) -> None:
        """page: descriptor of the owner's visible page."""
        self.ask("open", str(path), f"/proc/{os.getpid()}/fd/{page}")

    def read(self, keys: Sequence[bytes] = KEYS, audiences: Sequence[str] = AUDIENCES) -> Seen:
        """What it shows; both ways of reading a membership must agree."""
        shown = self.ask("read", [key.hex() for key in keys], list(audiences))
        memberships = {(key, audience): v for key in keys for audience, v in shown["memberships"][key.hex()].items()}
        for key in keys:
            assert shown["lookup"][key.hex()] == [memberships.get((key, audience)) for audience in audiences]
        segments = {name: (revision, audience) for name, (revision, audience) in shown["segments"].items()}
        assert shown["ids"] == sorted(segments)
        return memberships, segments

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def followers(count: int) -> Iterator[list[Follower]]:
    started = [Follower() for _ in range(count)]
    try:
        yield started
    finally:
        for follower in started:
            follower.__exit__(None, None, None)


class OwnerStore(HandDrivenStore):
    """Looks are taken where a record is on disk, and where it is published and not merged."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_disk: Callable[[], None] = lambda: None
        """Called in the committer's thread when a record is durable and not published."""
        self.published: Callable[[], None] = lambda: None
        """Called when it is published and nothing of it is merged."""
        self.generations = 0
        dispatch = self._router.dispatch

        async def watched(*arguments: Any) -> None:
            self.published()
            await dispatch(*arguments)

        self._router.dispatch = watched  # type: ignore[assignment,method-assign]

    def _append(self, blob: bytes) -> int:
        seq = super()._append(blob)
        self.on_disk()
        return seq

    def fold_published(self, changes_max: int = 1_000_000) -> None:
        """What the checkpointer does."""
        folded = fold(self._journal, self._index, changes_max=changes_max, seq_max=self.publication.record)
        self.checkpointing.folded_seq = max(self.checkpointing.folded_seq, folded.seq)

    def cut(self) -> None:
        """Cut what may be cut, as commits do little by little."""
        self._journal.cut(self.checkpointing.cut_to)

    def swap(self) -> str:
        """What a scrub does to the files; returns the generation."""
        self.generations += 1
        generation = f"{self.generations}-{os.urandom(4).hex()}"
        self.fold()
        self._index.copy_to(self._folder.make_generation(generation))
        journal = self._folder.open_journal(generation=generation)
        journal.close()
        seq = self._journal.last_seq
        self._folder.prepare_generation(generation)
        self._folder.take_generation()
        self._folder.reopen(self._journal, self._index, generation)
        self._journal.continue_after(seq)
        self.checkpointing.replaced(seq)
        self._deletions.look_again(self._index, self.checkpointing)
        return generation

    def remove_old_files(self) -> None:
        self._folder.remove_other_generations()


class Owner:
    """A recovered store with catalog, actors and visible page."""

    def __init__(self, store: OwnerStore, catalog: Catalog, visible: Visible, page: int) -> None:
        self.store, self.catalog, self.visible, self.page = store, catalog, visible, page

    def read(self) -> Seen:
        segments = {
            name: (segment.revision, segment.definition.external_audience_id)
            for name, segment in self.catalog.segments.items()
        }
        memberships = {(key, audience): v for key in KEYS for audience, v in self.store.memberships(key).items()}
        return memberships, segments


@asynccontextmanager
async def owner(path: Path) -> AsyncIterator[Owner]:
    """At the end it is torn down at once, as a crash would."""
    visible, page = Visible.create()
    with data_folder(path) as folder:
        store = OwnerStore(
            folder,
            storage=StorageSettings(path=str(path)),
            runtime=RuntimeSettings(shards=2, slice_changes_max=1),
            limits=LimitsSettings(),
            observer=Unobserved(),
            visible=visible,
        )
        catalog = Catalog(store.committer, segments_max=10, retry_after_seconds=1)
        catalog.load(store.recover().segments.values())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.committer.run)
            nursery.start_soon(catalog.run)
            for actor in store._actors:
                nursery.start_soon(actor.run)
            yield Owner(store, catalog, visible, page)
            nursery.cancel_scope.cancel()
        store.close_environments()
    visible.close()
    os.close(page)
